//! Running Waybill's binaries in a test: start with an environment, wait until ready, kill, stop, go on.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::polling::eventually_named;
use crate::ports::free_port;

/// Lines of output kept, for failures' messages and for tests that count lines: more than any of these says, too few to fill
/// the memory.
const OUTPUT_LINES_MAX: usize = 5_000;
/// How long the last lines of an ended process are waited for: it ends before they are read.
const OUTPUT_WAIT: Duration = Duration::from_secs(15);
/// How long a killed process may take to be gone.
const EXIT_WAIT: Duration = Duration::from_secs(60);

/// What to start: a binary's name, its environment, its arguments.
#[derive(Debug, Clone)]
pub struct ProcessBuilder {
    binary: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    http: bool,
}

impl ProcessBuilder {
    /// A variable of its environment; the test's own environment is inherited beneath.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// It serves no HTTP: no `WAYBILL_HTTP_ADDR` is given to it.
    #[must_use]
    pub fn without_http(mut self) -> Self {
        self.http = false;
        self
    }

    /// Starts it on a free port of loopback; does not wait until it is ready.
    ///
    /// # Panics
    /// When the binary can not be started.
    #[must_use]
    pub fn spawn(mut self) -> Process {
        let port = if self.http { free_port() } else { 0 };
        if self.http {
            self.environment.entry("WAYBILL_HTTP_ADDR".to_owned()).or_insert(format!("127.0.0.1:{port}"));
        }
        if self.http {
            let operators = format!("127.0.0.1:{}", free_port());
            self.environment.entry("WAYBILL_OPERATOR_ADDR".to_owned()).or_insert(operators);
        }
        let url = |name: &str| format!("http://{}", self.environment.get(name).cloned().unwrap_or_default());
        let (url, operator_url) = (url("WAYBILL_HTTP_ADDR"), url("WAYBILL_OPERATOR_ADDR"));
        let output = Output::default();
        let child = start(&self, &output);
        Process { builder: self, child, url, operator_url, output }
    }
}

/// A running binary; killed together with this value.
pub struct Process {
    /// `http://127.0.0.1:PORT` of its listener; stays the same when it is started again.
    pub url: String,
    /// The same of its operators' listener; only services have one.
    pub operator_url: String,
    builder: ProcessBuilder,
    child: Child,
    output: Output,
}

impl Process {
    /// Names a binary of `WAYBILL_BIN_DIR` (else of the build folder this test runs from): `waybill-orders`.
    #[must_use]
    pub fn named(binary: &str) -> ProcessBuilder {
        let environment = BTreeMap::new();
        ProcessBuilder { binary: binary.to_owned(), arguments: Vec::new(), environment, http: true }
    }

    /// Waits until `GET /ready` answers 200.
    ///
    /// # Panics
    /// After `timeout`, or when the process ended, with the last lines it wrote.
    pub async fn wait_ready(&mut self, timeout: Duration) {
        let url = format!("{}/ready", self.url);
        let name = self.builder.binary.clone();
        let client = reqwest::Client::new();
        let started = std::time::Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{name} ended with {status} before it was ready:\n{}", self.output());
            }
            let asked = client.get(&url).timeout(Duration::from_secs(2)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(started.elapsed() < timeout, "{name} is not ready after {timeout:?}:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill9(&mut self) {
        let _ = self.child.kill().await;
    }

    /// Asks it to end (SIGTERM) and returns its exit code; `None` when a signal ended it.
    ///
    /// # Panics
    /// When it is still there after a minute.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM").await;
        let ended = tokio::time::timeout(EXIT_WAIT, self.child.wait()).await;
        let ended =
            ended.unwrap_or_else(|_| panic!("{} ignores SIGTERM:\n{}", self.builder.binary, self.output()));
        self.output.read_to_its_end().await;
        ended.ok().and_then(|status| status.code())
    }

    /// Waits until it ends by itself and returns its exit code.
    ///
    /// # Panics
    /// When it is still there after `timeout`.
    pub async fn wait_exit(&mut self, timeout: Duration) -> Option<i32> {
        let ended = tokio::time::timeout(timeout, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| {
            panic!("{} still runs after {timeout:?}:\n{}", self.builder.binary, self.output())
        });
        self.output.read_to_its_end().await;
        ended.ok().and_then(|status| status.code())
    }

    /// Freezes it (SIGSTOP): it keeps its connections and answers nothing.
    pub async fn sigstop(&self) {
        self.signal("STOP").await;
    }

    /// Lets a frozen process go on (SIGCONT).
    pub async fn sigcont(&self) {
        self.signal("CONT").await;
    }

    /// Starts it again with the same environment and address, after it ended.
    ///
    /// # Panics
    /// When the binary can not be started.
    pub fn restart(&mut self) {
        self.child = start(&self.builder, &self.output);
    }

    /// The last lines it wrote, standard output and standard error together.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Waits until one of its lines contains `text`.
    ///
    /// # Panics
    /// After `timeout`.
    pub async fn wait_output(&self, text: &str, timeout: Duration) {
        eventually_named(text, timeout, async || self.output().contains(text).then_some(())).await;
    }

    /// Sends a signal through the `kill` command, which needs no unsafe code.
    async fn signal(&self, name: &str) {
        if let Some(pid) = self.child.id() {
            let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().await;
            assert!(sent.is_ok_and(|s| s.success()), "sending SIG{name} to {} ({pid})", self.builder.binary);
        }
    }
}

/// Most resident memory that a process has had (KiB), as the kernel counts it; `None` when it is gone.
#[must_use]
pub fn peak_memory_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))?;
    peak.trim().parse().ok()
}

/// Path of one of Waybill's binaries.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary_path(name: &str) -> PathBuf {
    let folder = match std::env::var_os("WAYBILL_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        // target/debug/deps/it-1234 -> target/debug
        None => std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.parent()?.to_owned()))
            .expect("a test binary lies two folders below the binaries"),
    };
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run `cargo xtask test`, or `cargo build` first", path.display());
    path
}

fn start(what: &ProcessBuilder, output: &Output) -> Child {
    let mut child = Command::new(binary_path(&what.binary))
        .args(&what.arguments)
        .envs(&what.environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("starting {}: {e}", what.binary));
    if let Some(stdout) = child.stdout.take() {
        output.follow(stdout);
    }
    if let Some(stderr) = child.stderr.take() {
        output.follow(stderr);
    }
    child
}

/// The last lines of a process.
#[derive(Debug, Clone, Default)]
struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// Streams not read to their end yet.
    open: Arc<AtomicUsize>,
}

impl Output {
    fn follow(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let (lines, open) = (Arc::clone(&self.lines), Arc::clone(&self.open));
        open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                let mut lines = lines.lock().expect("no panic while held");
                if lines.len() == OUTPUT_LINES_MAX {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// Waits, at most for [`OUTPUT_WAIT`], until all that an ended process wrote is read.
    async fn read_to_its_end(&self) {
        let started = std::time::Instant::now();
        while self.open.load(Ordering::SeqCst) > 0 && started.elapsed() < OUTPUT_WAIT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.lock().expect("no panic while held");
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}
