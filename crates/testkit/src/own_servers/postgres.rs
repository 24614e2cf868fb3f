//! A PostgreSQL of a test's own: stopped, killed, started again, copied to a streaming standby, promoted.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::process::Command;

use super::{Folder, READY_WAIT, Running, required, run};
use crate::ports::free_port;

/// Where `initdb` and `postgres` are.
const BIN: &str = "WAYBILL_POSTGRES_BIN";
/// Accounts that the server runs as when the test is root, which it refuses: the first that exists.
const ACCOUNTS: [&str; 3] = ["postgres", "waybill-postgres", "nobody"];
/// Small, quick to start, and nothing is missed after a power cut; what a killed process wrote is kept all the same.
const SETTINGS: [&str; 9] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "shared_buffers=32MB",
    "max_connections=60",
    "max_prepared_transactions=32",
    "client_connection_check_interval=1s",
    "wal_level=replica",
    "wal_keep_size=256MB",
];
/// Longest wait for one question whether the server answers.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// A server with a cluster of its own; ended and wiped together with this value.
#[derive(Debug)]
pub struct OwnPostgres {
    port: u16,
    running: Option<Running>,
    account: Option<Account>,
    folder: Folder,
}

/// Who runs it.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl OwnPostgres {
    /// Makes a cluster (user `postgres`, no password, loopback only) and waits until it answers.
    ///
    /// # Panics
    /// When `WAYBILL_POSTGRES_BIN` is missing or the server does not come up.
    pub async fn start() -> Self {
        Self::start_in(&std::env::temp_dir()).await
    }

    /// The same with its data in a folder of its own below `parent`.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_in(parent: &Path) -> Self {
        let mut server = Self::prepared(parent).await;
        let mut initdb = server.program("initdb");
        initdb.arg("-D").arg(server.data()).args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        initdb.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-sync"]);
        run(initdb).await;
        server.start_again().await;
        server
    }

    /// A folder that the account can write, no cluster yet.
    async fn prepared(parent: &Path) -> Self {
        let (folder, account) = (Folder::make_in(parent, "postgres"), account().await);
        if let Some(Account { uid, gid }) = account {
            chown(&folder.0, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        Self { port: free_port(), running: None, account, folder }
    }

    /// URL of one of its databases; `postgres` is always there.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port of loopback it listens on; stays the same when it is started again.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements in one of its databases, on a connection of its own.
    ///
    /// # Panics
    /// When it is away or refuses.
    pub async fn execute(&self, database: &str, statements: &str) {
        let mut connection = PgConnection::connect(&self.url(database)).await.expect("the test's own server");
        let done = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await;
        done.unwrap_or_else(|e| panic!("{statements}: {e}"));
        let _ = connection.close().await;
    }

    /// Ends it as a restart does (SIGINT): clients are sent away, everything is written.
    pub async fn stop(&mut self) {
        self.end("INT", &[]).await;
    }

    /// Kills it and every process of it with SIGKILL: what was not in its log of writes is gone.
    pub async fn kill9(&mut self) {
        let children = match &self.running {
            Some(running) => running.children().await,
            None => Vec::new(),
        };
        self.end("KILL", &children).await;
    }

    async fn end(&mut self, signal: &str, others: &[u32]) {
        if let Some(mut running) = self.running.take() {
            running.signal(signal, others).await;
            running.ended().await;
        }
    }

    /// Starts it after it ended, on the same port and data, and waits until it lets clients in.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_again(&mut self) {
        let started = Instant::now();
        loop {
            let mut postgres = self.program("postgres");
            postgres.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
            for setting in SETTINGS {
                postgres.args(["-c", setting]);
            }
            let mut running = Running::start(postgres, &self.folder.0.join("log"));
            let url = self.url("postgres");
            let there = running.answers(async || answers(&url).await).await;
            if there {
                self.running = Some(running);
                return;
            }
            // Killed processes of its last life may still hold its memory for a moment.
            let text = super::tail(&running.log);
            assert!(started.elapsed() < READY_WAIT, "PostgreSQL ended at its start:\n{text}");
            running.ended().await;
        }
    }

    /// A streaming standby of this server, asynchronous, ready for reading. This one is down for a moment while its
    /// data are copied.
    ///
    /// # Panics
    /// When one of them does not come up.
    pub async fn standby(&mut self) -> OwnPostgres {
        self.stop().await;
        let mut standby = Self::prepared(&std::env::temp_dir()).await;
        let mut copy = standby.command(Path::new("cp"));
        copy.arg("-R").arg(self.data()).arg(standby.data());
        run(copy).await;
        self.start_again().await;
        let from = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.port);
        let mut signal = standby.command(Path::new("sh"));
        let script = "touch \"$0/standby.signal\" && printf %s \"$1\" >> \"$0/postgresql.auto.conf\"";
        signal.args(["-c", script]).arg(standby.data()).arg(from);
        run(signal).await;
        standby.start_again().await;
        standby
    }

    /// Makes a standby a primary and waits until it takes writes.
    ///
    /// # Panics
    /// When it is none, or does not within a minute.
    pub async fn promote(&self) {
        self.execute("postgres", "select pg_promote(true, 60)").await;
    }

    /// Freezes the whole server (SIGSTOP): connections stay open, nothing answers.
    pub async fn sigstop(&self) {
        self.signal_all("STOP").await;
    }

    /// Lets a frozen server go on.
    pub async fn sigcont(&self) {
        self.signal_all("CONT").await;
    }

    async fn signal_all(&self, name: &str) {
        if let Some(running) = &self.running {
            running.signal(name, &running.children().await).await;
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.0.join("data")
    }

    fn program(&self, name: &str) -> Command {
        let folder =
            PathBuf::from(required(BIN, "a folder with the programs initdb and postgres, version 18"));
        self.command(&folder.join(name))
    }

    /// A command run by the server's account, in the server's folder.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder.0);
        if let Some(Account { uid, gid }) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Whether it lets a client in.
async fn answers(url: &str) -> bool {
    let asked = tokio::time::timeout(QUESTION_TIMEOUT, PgConnection::connect(url)).await;
    matches!(asked, Ok(Ok(_)))
}

/// `None` when the test is not root.
async fn account() -> Option<Account> {
    if id(&["-u"]).await? != 0 {
        return None;
    }
    for name in ACCOUNTS {
        if let (Some(uid), Some(gid)) = (id(&["-u", name]).await, id(&["-g", name]).await) {
            return Some(Account { uid, gid });
        }
    }
    panic!("PostgreSQL does not run as root, and none of the accounts {ACCOUNTS:?} exists: make one of them");
}

async fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().await.expect("the program id");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
