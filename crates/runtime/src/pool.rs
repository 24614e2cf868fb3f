//! Postgres pools: no half-open transaction is ever handed out, and every statement has a time limit.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, Postgres};

use crate::config;
use crate::lifecycle::Shutdown;
use crate::retry::Backoff;
pub use crate::statements::Statements;

/// How long to wait for a free connection: past it the pool is overloaded and the caller hears 503.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// No statement of a service needs longer; one that does is ended by the server, its locks with it.
pub const STATEMENT_TIMEOUT_MS: u32 = 10_000;
/// Waiting for a lock longer means a conflict that the caller should hear of (409 or another try).
pub const LOCK_TIMEOUT_MS: u32 = 2_000;
/// A transaction that sits idle this long belongs to a process that hangs; its locks are taken back.
pub const IDLE_IN_TRANSACTION_TIMEOUT_MS: u32 = 10_000;
/// How long one round of a loop, or a command's transaction, may wait for Postgres in all: a few statements at their limit. A server
/// that hangs, its connections open, or a network that lost them, answers none of them and ends none of them.
pub const ROUND_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a connection that comes back to its pool may take to be done with what it was dropped in the middle of. A server
/// that hangs is never done.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The server looks this often whether a busy session's client still lives, so that a killed process's locks go.
pub const CLIENT_CONNECTION_CHECK_MS: u32 = 1_000;

/// A service's pools. Each has its own bound, so that callers who fill one leave the others their connections; all of
/// them connect when they are first used.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Commands over HTTP that take several statements.
    pub commands: PgPool,
    /// Commands over HTTP that are one statement.
    pub statements: Statements,
    /// Reads over HTTP.
    pub reads: Statements,
    /// What nobody waits for with a connection open: consumers, sweepers, workers, upkeep; and the operators' API.
    pub background: PgPool,
    /// One connection, for `/ready`.
    pub probes: Statements,
}

impl Pools {
    /// Pools with the bounds that the settings give.
    ///
    /// # Errors
    /// When the URL can not be read.
    pub fn connect(config: &config::Postgres, application_name: &str) -> Result<Self, sqlx::Error> {
        let config::Postgres { url, bounds } = config;
        Ok(Self {
            commands: connect(url, bounds.writes, application_name)?,
            statements: Statements::connect(url, bounds.writes, application_name)?,
            reads: Statements::connect(url, bounds.reads, application_name)?,
            background: connect(url, bounds.background, application_name)?,
            probes: Statements::connect(url, 1, application_name)?,
        })
    }
}

/// A pool that connects when it is first used.
///
/// `before_acquire` rolls back whatever the connection's last user left open, in place of the usual ping: sqlx 0.9.0
/// can hand out a connection whose cancelled `begin()` left a transaction open, in which the next user's
/// acknowledged insert would never commit. The roll back costs the same round trip as the ping and cures it. Work that is
/// a single statement does without it: [`Statements`].
///
/// A transaction or a statement that was dropped is rolled back, or waited for, when its connection comes back to the pool.
/// sqlx does that without a limit, and a connection to a server that hangs would be missing in the pool until TCP gives it up,
/// in a quarter of an hour; here it is closed after two seconds. One gap stays: on its way back sqlx asks every connection whether
/// it lives, without a limit, and one whose answer is under way at the moment when the server freezes is missing until it
/// thaws.
///
/// # Errors
/// When the URL can not be read.
pub fn connect(url: &str, max: u32, application_name: &str) -> Result<PgPool, sqlx::Error> {
    let guarded = bounded(max).before_acquire(|connection, _| {
        Box::pin(async move {
            // One round trip. `begin` keeps the server from warning that there is nothing to roll back, each time;
            // in a failed transaction it is an error, and sqlx closes the connection.
            sqlx::raw_sql("begin; rollback").execute(connection).await?;
            Ok(true)
        })
    });
    Ok(guarded.connect_lazy_with(session(url, application_name)?))
}

/// A URL as the driver reads it.
///
/// # Errors
/// When it can not.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    PgConnectOptions::from_str(url)
}

/// How every session of a service is set.
pub(crate) fn session(url: &str, application_name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(options(url)?.application_name(application_name).options([
        ("statement_timeout", STATEMENT_TIMEOUT_MS.to_string()),
        ("lock_timeout", LOCK_TIMEOUT_MS.to_string()),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS.to_string()),
        ("client_connection_check_interval", CLIENT_CONNECTION_CHECK_MS.to_string()),
        // A service's statements find their rows by keys. A prepared plan that was made while a table was small may
        // read all of it, and is kept until the table is analysed: a minute of load on a new database.
        // It does not keep a join from beginning with the wrong table: statements for many rows look each up by its key.
        ("enable_seqscan", "off".to_owned()),
    ]))
}

/// A pool's options without any guard.
pub(crate) fn bounded(max: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_release(|connection, _| {
            Box::pin(async move {
                // What is left to be sent and to be heard; the usual release has neither, and costs nothing more.
                within(RELEASE_TIMEOUT, connection.flush()).await?;
                Ok(true)
            })
        })
}

/// A connection for work that may take as long as it takes, such as an `alter` of a large table. It waits for locks no
/// longer than others do: whoever comes behind it would wait too.
///
/// # Errors
/// When the URL can not be read, or the database does not answer.
pub async fn connect_unhurried(url: &str, application_name: &str) -> Result<PgConnection, sqlx::Error> {
    let session = session(url, application_name)?;
    PgConnection::connect_with(&session.options([("statement_timeout", "0")])).await
}

/// A pool's connection for work that may be cut off anywhere, also between two messages to the server: unless it is given
/// back, it is closed, so that nobody meets what was half done, and the pool has its place again.
#[derive(Debug)]
pub struct Checkout {
    connection: PoolConnection<Postgres>,
    is_whole: bool,
}

impl Checkout {
    /// Waits for a connection, for [`ACQUIRE_TIMEOUT`] at most.
    ///
    /// # Errors
    /// What the pool says.
    pub async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: pool.acquire().await?, is_whole: false })
    }

    /// The work came to its end, whichever.
    pub fn give_back(mut self) {
        self.is_whole = true;
    }
}

impl Deref for Checkout {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Checkout {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if !self.is_whole {
            // Bounded by sqlx: a goodbye, and after five seconds without.
            self.connection.close_on_drop();
        }
    }
}

/// Work with the database that is done again when it fails, by a loop or by whoever sent the request, within
/// [`ROUND_TIME_MAX`]. What is cut off is rolled back, or may have been committed: as after a lost connection.
///
/// # Errors
/// What the work says; [`sqlx::Error::Io`] with `TimedOut` when the time is over.
pub async fn round<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    within(ROUND_TIME_MAX, work).await
}

/// The same with another limit.
pub(crate) async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(timed_out().into()))
}

pub(crate) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Waits until the database answers, saying so; `false` when the shutdown came first.
pub async fn wait_until_ready(pool: &PgPool, what: &str, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    while !shutdown.is_requested() {
        match sqlx::query("select 1").execute(pool).await {
            Ok(_) => return true,
            Err(error) => {
                let wait = backoff.next_wait();
                tracing::warn!(what, %error, wait_ms = wait.as_millis(), "waiting for Postgres");
                shutdown.sleep(wait).await;
            }
        }
    }
    false
}

/// Postgres' code for a lock that was not granted within `lock_timeout` (appendix A: `lock_not_available`).
pub const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Whether a transaction was only in another's way: a serialization failure, a deadlock, a lock that was waited for too
/// long. A smaller transaction may get through.
#[must_use]
pub fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01" | LOCK_NOT_AVAILABLE))
}

/// Whether the same work may succeed later without anything being changed: the server is away, failing over or
/// overloaded, or the transaction lost a conflict (Postgres error codes, appendix A: classes 08, 53, 57P and 40, 55P03, 25006).
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        // A connection cut in the middle of an answer.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            is_conflict(error)
                || matches!(code.as_ref(), "25006" | "57014" | "25P03")
                || code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57P")
        }),
        _ => false,
    }
}
