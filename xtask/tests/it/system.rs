//! A system of a test's own, driven by commands as a user types them.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a killed server may take to be back, in seconds: Kafka recovers its log on a machine that compiles.
const BACK_TIMEOUT_S: u64 = 120;

/// A system in a folder of its own; dropping it stops it.
pub(crate) struct System {
    dir: PathBuf,
    programs: Option<OsString>,
}

impl System {
    pub(crate) fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let system = Self { dir, programs: None };
        system.xtask(&["down"]);
        let _ = std::fs::remove_dir_all(&system.dir);
        system
    }

    /// Whose services are the programs that were built for the tests.
    pub(crate) fn with_programs(mut self) -> Self {
        let Some(programs) = std::env::var_os("WAYBILL_BIN_DIR") else {
            panic!("WAYBILL_BIN_DIR is not set: run `cargo xtask test -p xtask`, which builds the programs")
        };
        self.programs = Some(programs);
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn xtask(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        self.of(command.args(args)).output().unwrap()
    }

    /// The command, about this system.
    pub(crate) fn of<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        // The servers of a surrounding `cargo xtask test` are not this test's.
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env_remove("WAYBILL_POSTGRES_URL");
        command.env_remove("WAYBILL_BIN_DIR");
        if let Some(programs) = &self.programs {
            command.env("WAYBILL_BIN_DIR", programs);
        }
        command.env("WAYBILL_DEV_DIR", &self.dir)
    }

    /// Runs a command that has to succeed; returns its stdout.
    pub(crate) fn must(&self, args: &[&str]) -> String {
        let output = self.xtask(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "xtask {args:?} failed:\n{out}\n{err}");
        out.into_owned()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.xtask(&["status", "--json"]).stdout).unwrap()
    }

    pub(crate) fn service_pid(&self, service: &str) -> Option<u64> {
        self.status()["services"][service]["pid"].as_u64()
    }

    pub(crate) fn pid(&self, server: &str) -> Option<u64> {
        self.status()[server]["pid"].as_u64()
    }

    /// The process that keeps the system running.
    pub(crate) fn owner(&self) -> u64 {
        let state = std::fs::read_to_string(self.dir.join("run/state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        state["owner"]["pid"].as_u64().unwrap()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.xtask(&["down"]);
    }
}

pub(crate) fn kill9(pid: u64) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

pub(crate) fn alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(BACK_TIMEOUT_S);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
