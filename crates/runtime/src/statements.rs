//! A pool for work that is one statement, its own transaction: none can be begun on it, so it needs no guard against one
//! that was left open, and saves the guard's round trip.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use sqlx::postgres::{PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres};
use sqlx::{Connection as _, Describe, Either, Error, Execute, Executor, SqlStr};

use crate::pool::{bounded, session, timed_out, within};

/// A connection that was idle for longer is asked whether it still lives before it is handed out. One that was in use just
/// now is not: under load nobody pays for it, and after a restart of the server the first user of each hears of it.
const IDLE_UNASKED_MAX: Duration = Duration::from_secs(1);
/// How long a statement may take, the wait for its connection included: longer than the pool and the server let it. An answer
/// that is not there by then does not come: the server hangs, or the network lost the connection, which is closed then.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// Runs statements, each on any of its connections (sqlx's `Executor`). It offers no connection and no `begin()`.
#[derive(Clone, Debug)]
pub struct Statements(PgPool);

impl Statements {
    /// A pool that connects when it is first used.
    ///
    /// # Errors
    /// When the URL can not be read.
    pub fn connect(url: &str, max: u32, application_name: &str) -> Result<Self, Error> {
        let asking = bounded(max).before_acquire(|connection, known| {
            Box::pin(async move {
                if known.idle_for > IDLE_UNASKED_MAX {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
        Ok(Self(asking.connect_lazy_with(session(url, application_name)?)))
    }
}

impl<'p> Executor<'p> for &'_ Statements {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let deadline = tokio::time::Instant::now() + ANSWER_TIME_MAX;
        let answers = self.0.fetch_many(query);
        stream::unfold(Some(answers), move |answers| async move {
            let mut answers = answers?;
            match tokio::time::timeout_at(deadline, answers.next()).await {
                Ok(answer) => Some((answer?, Some(answers))),
                Err(_) => Some((Err(timed_out()), None)),
            }
        })
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        within(ANSWER_TIME_MAX, self.0.fetch_optional(query)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        self.0.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        self.0.describe(sql)
    }
}
