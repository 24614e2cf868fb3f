//! `up --servers` through its whole life: killed processes come back, a killed `up` leaves nothing, data stays.
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a killed server may take to be back, in seconds: Kafka recovers its log on a machine that compiles.
const BACK_TIMEOUT_S: u64 = 120;

/// A system in a folder of its own; dropping it stops it.
struct System {
    dir: PathBuf,
}

impl System {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let system = Self { dir };
        system.xtask(&["down"]);
        let _ = std::fs::remove_dir_all(&system.dir);
        system
    }

    fn xtask(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).env("WAYBILL_DEV_DIR", &self.dir);
        // The servers of a surrounding `cargo xtask test` are not this test's.
        command.env_remove("KAFKA_BOOTSTRAP_SERVERS").env_remove("WAYBILL_POSTGRES_URL");
        command.output().unwrap()
    }

    /// Runs a command that has to succeed; returns its stdout.
    fn must(&self, args: &[&str]) -> String {
        let output = self.xtask(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "xtask {args:?} failed:\n{out}\n{err}");
        out.into_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.xtask(&["status", "--json"]).stdout).unwrap()
    }

    fn pid(&self, server: &str) -> Option<u64> {
        self.status()[server]["pid"].as_u64()
    }

    /// The process that keeps the system running.
    fn owner(&self) -> u64 {
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

fn kill9(pid: u64) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(BACK_TIMEOUT_S);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn servers_heal_keep_their_data_and_leave_nothing_behind() {
    let system = System::new("up-servers");
    system.must(&["up", "--servers", "--detach"]);
    system.must(&["kafka", "topics", "--create", "--topic", "kept", "--partitions", "3"]);

    let again = system.xtask(&["up", "--servers", "--detach"]);
    assert!(again.status.success(), "a second up shows the first");
    assert!(String::from_utf8_lossy(&again.stderr).contains("already running"));
    assert!(!system.xtask(&["up", "--fresh"]).status.success(), "nothing is wiped under a running system");

    // Killed servers come back by themselves, at the same address.
    let before = system.status();
    for server in ["kafka", "postgres"] {
        let pid = system.pid(server).unwrap();
        kill9(pid);
        eventually(server, || system.pid(server).filter(|now| *now != pid));
    }
    assert_eq!(before["kafka"]["bootstrap"], system.status()["kafka"]["bootstrap"]);
    eventually("the topic after a kill", || {
        let listed = system.xtask(&["kafka", "topics", "--list"]);
        String::from_utf8_lossy(&listed.stdout).contains("kept").then_some(())
    });

    // A killed `up` takes its processes with it, and `down` tidies up.
    let pids: Vec<u64> = ["kafka", "postgres"].iter().filter_map(|server| system.pid(server)).collect();
    assert_eq!(pids.len(), 2);
    kill9(system.owner());
    #[cfg(target_os = "linux")]
    for pid in &pids {
        eventually("the end of an orphan", || (!alive(*pid)).then_some(()));
    }
    system.must(&["down"]);
    assert!(pids.iter().all(|pid| !alive(*pid)));
    assert!(system.must(&["down"]).contains("Nothing was running"));

    // The next one finds its data again.
    system.must(&["up", "--servers", "--detach"]);
    assert!(system.must(&["kafka", "topics", "--list"]).contains("kept"));
    let pids: Vec<u64> = ["kafka", "postgres"].iter().filter_map(|server| system.pid(server)).collect();
    system.must(&["down"]);
    assert!(pids.iter().all(|pid| !alive(*pid)));
    assert_eq!(system.xtask(&["status"]).status.code(), Some(1));

    // Unless it is told to begin afresh.
    system.must(&["up", "--servers", "--detach", "--fresh"]);
    assert!(!system.must(&["kafka", "topics", "--list"]).contains("kept"));
}
