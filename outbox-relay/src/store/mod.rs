//! All SQL of the relay: reading the outbox, and the one row that holds position and lease.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};

mod keeper;
mod measure;
mod reader;
mod row;
mod waiter;

pub use keeper::{Grant, Keeper, KeeperError};
pub use measure::{FINISHED, MEASURE, Measuring};
pub use reader::{Bounds, PIECE, PIECE_SIZED, POLL, PieceRows, Poll, Reader, ReaderError, SETTINGS};
pub use row::Row;
pub use waiter::SESSION;

/// How long connecting may take: a server that does not answer within this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the server's own statement timeout an answer may take before the connection counts as dead.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// Waiting for a lock longer means that a partition is being attached or dropped: try again later, hold nobody up.
const LOCK_TIMEOUT_MS: u32 = 2_000;

/// Why a statement failed, by what there is to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The tables do not exist (yet).
    #[error(
        "the tables outbox and outbox_relay do not exist in this database: start the service that owns them, or run \
         crates/outbox/migrations/0101_outbox.sql"
    )]
    NoTables(#[source] sqlx::Error),
    /// The role may not read or write them.
    #[error("this role may not do it: grant select on outbox and select, update on outbox_relay to it")]
    NoPrivilege(#[source] sqlx::Error),
    /// The server answered with another error.
    #[error("Postgres refused a statement")]
    Refused(#[source] sqlx::Error),
    /// The connection failed or could not be made.
    #[error("Postgres is away")]
    Away(#[source] sqlx::Error),
    /// No answer came in time: the connection is given up.
    #[error("Postgres gave no answer within {0:?}")]
    Silent(Duration),
    /// An earlier statement was given up in the middle: what comes on this connection may be its answer.
    #[error("the connection is in the middle of a statement that was given up")]
    Midway,
    /// The answer is not what the statement promises.
    #[error("an answer of Postgres could not be read: {0}")]
    Unreadable(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code =
            error.as_database_error().and_then(|database| database.code().map(|code| code.into_owned()));
        match (code.as_deref(), &error) {
            (Some("42P01" | "3F000"), _) => Self::NoTables(error),
            (Some("42501"), _) => Self::NoPrivilege(error),
            // Shutting down, starting up, too many connections: it will be there again.
            (Some(code), _)
                if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") =>
            {
                Self::Away(error)
            }
            (Some(_), _) => Self::Refused(error),
            (
                None,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_),
            ) => Self::Unreadable(error.to_string()),
            (None, _) => Self::Away(error),
        }
    }
}

/// A connection with a limit on every statement. It is not shared and never cancelled in the middle: who gives up
/// waiting drops it, so no one ever meets another's half-done statement. One that was given up takes no other.
struct Session {
    connection: PgConnection,
    answer_timeout: Duration,
    midway: bool,
}

impl Session {
    /// Connects and sets the session up; `settings` are `set` statements.
    async fn connect(
        options: &PgConnectOptions,
        statement_timeout: Duration,
        settings: &str,
    ) -> Result<Self, StoreError> {
        let options = options.clone().disable_statement_logging();
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect());
        let connection = connecting.await.map_err(|_| StoreError::Silent(CONNECT_TIMEOUT))??;
        let mut session =
            Self { connection, answer_timeout: statement_timeout + ANSWER_GRACE, midway: false };
        let limits = format!(
            "set statement_timeout = {}; set lock_timeout = {LOCK_TIMEOUT_MS}; set default_transaction_read_only = \
             off; set default_transaction_isolation = 'read committed'; {settings}",
            statement_timeout.as_millis()
        );
        session
            .bounded(async |connection| sqlx::raw_sql(AssertSqlSafe(limits)).execute(connection).await)
            .await?;
        Ok(session)
    }

    /// From now on a statement may take so long.
    async fn limit(&mut self, statement_timeout: Duration) -> Result<(), StoreError> {
        let limit = format!("set statement_timeout = {}", statement_timeout.as_millis());
        self.bounded(async |connection| sqlx::raw_sql(AssertSqlSafe(limit)).execute(connection).await)
            .await?;
        self.answer_timeout = statement_timeout + ANSWER_GRACE;
        Ok(())
    }

    /// One statement, with a bound on waiting for its answer.
    async fn bounded<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        if std::mem::replace(&mut self.midway, true) {
            return Err(StoreError::Midway);
        }
        let answer = within(self.answer_timeout, statement(&mut self.connection)).await;
        self.midway = matches!(answer, Err(StoreError::Silent(_)));
        answer
    }
}

async fn within<T>(
    limit: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, statement)
        .await
        .map_err(|_| StoreError::Silent(limit))?
        .map_err(StoreError::from)
}
