//! Servers of a test's own: a PostgreSQL or a Kafka that it may stop, kill, copy and promote without hurting others.
//!
//! Their programs are found by two variables that `cargo xtask test` sets: `WAYBILL_POSTGRES_BIN` (a folder with
//! `initdb` and `postgres`) and `WAYBILL_KAFKA_CLASSPATH` (Kafka's jars, as `java -cp` takes them). A server ends
//! together with its value, and with the test's process, however that ends; its data go with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

mod kafka;
mod postgres;
mod switch;

pub use kafka::{OwnKafka, OwnKafkaBuilder};
pub use postgres::OwnPostgres;
pub use switch::TcpSwitch;

/// How long a server may take to answer on a machine that compiles beside it.
const READY_WAIT: Duration = Duration::from_secs(120);
/// How long a server may take to end after it was asked or killed.
const END_WAIT: Duration = Duration::from_secs(60);
/// Pause between two questions whether a server answers.
const QUESTION_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a server's log shown when it does not come up.
const LOG_TAIL_BYTES_MAX: usize = 4_000;

/// A folder, removed together with this value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// In the system's temporary one.
    fn make(kind: &str) -> Self {
        Self::make_in(&std::env::temp_dir(), kind)
    }

    fn make_in(parent: &Path, kind: &str) -> Self {
        let path = parent.join(format!("waybill-{kind}-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("making {}: {e}", path.display()));
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A child that is just ending may still write: what is left harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server's process, with one beside it that kills it when the test's process is gone.
#[derive(Debug)]
struct Running {
    child: Child,
    guard: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it; what it writes goes to the log.
    fn start(mut command: Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log);
        let (out, err) = (open().expect("the folder of the log is there"), open().expect("as before"));
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true).spawn();
        let child = child.unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
        let pid = child.id().unwrap_or_default().to_string();
        let guard = Command::new("sh")
            .args(["-c", "read -r _; kill -KILL \"$0\" 2> /dev/null", &pid])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("starting sh: {e}"));
        Self { child, guard, log: log.to_owned() }
    }

    /// Sends a signal, by its name, to the process and to these others.
    async fn signal(&self, name: &str, others: &[u32]) {
        let pids = self.child.id().into_iter().chain(others.iter().copied()).map(|pid| pid.to_string());
        // One of the others may have ended meanwhile.
        let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status().await;
    }

    /// The processes it started.
    async fn children(&self) -> Vec<u32> {
        let Some(pid) = self.child.id() else { return Vec::new() };
        let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &pid.to_string()]).output().await;
        let listed = listed.unwrap_or_else(|e| panic!("starting ps: {e}"));
        String::from_utf8_lossy(&listed.stdout)
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    /// Waits until it has ended, and lets its guard go.
    async fn ended(&mut self) {
        let ended = tokio::time::timeout(END_WAIT, self.child.wait()).await;
        assert!(ended.is_ok(), "the server did not end within {END_WAIT:?}:\n{}", tail(&self.log));
        let _ = self.guard.kill().await;
    }

    /// Asks until it answers; `None` from the question is no answer.
    ///
    /// Returns `false` when it ended instead.
    async fn answers(&mut self, mut question: impl AsyncFnMut() -> bool) -> bool {
        let started = Instant::now();
        while !question().await {
            if let Ok(Some(_)) = self.child.try_wait() {
                return false;
            }
            assert!(started.elapsed() < READY_WAIT, "no answer within {READY_WAIT:?}:\n{}", tail(&self.log));
            tokio::time::sleep(QUESTION_PAUSE).await;
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Before the process: the guard must not kill whoever has its number next.
        let _ = self.guard.start_kill();
        let _ = self.child.start_kill();
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES_MAX)..]).into_owned()
}

/// A program's whole run; its output is shown when it fails.
async fn run(mut command: Command) -> String {
    let output = command.output().await.unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn required(name: &str, what: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.trim().is_empty() => value,
        _ => panic!(
            "{name} is not set, and this test starts a server of its own: run `cargo xtask test`, which sets it, or set \
             it to {what}"
        ),
    }
}
