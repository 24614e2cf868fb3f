//! Publishing a part of the outbox again: the same messages with the same ids, appended anew in the same order per key.
//!
//! Harmless by the inbox: a consumer drops the ids it knows. What the topic has lost is there again.

use chrono::{DateTime, Days, Utc};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

/// Rows of one republication at most: one transaction, one round of the relay, seconds of work.
pub const ROWS_MAX: u32 = 100_000;
/// Days before that of a message's id in which its first row is looked for. The id is made just before that row, but by
/// another clock; and around midnight.
const DAYS_BEFORE_ID: u64 = 1;
/// Choosing by time or message id reads whole days: longer than a command's statement may take.
const STATEMENT_TIMEOUT_MS: u32 = 60_000;
/// SQLSTATE program_limit_exceeded: the function's word for too many rows.
const TOO_MANY: &str = "54000";

/// Which rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Appended (`created_at`) at or after `from` and before `to`.
    Time {
        /// Inclusive.
        from: DateTime<Utc>,
        /// Exclusive.
        to: DateTime<Utc>,
    },
    /// Row ids, both included.
    Ids {
        /// First.
        from: i64,
        /// Last.
        to: i64,
    },
    /// These messages; ids that the outbox does not hold (any more) choose nothing.
    ///
    /// No index helps here, since it would cost every append. But a UUIDv7 says when it was made: where all of them are,
    /// no day is read but those from the one before the oldest on ([`Republication::searched_from`]). There is no last day:
    /// a retry, a replay and a republication append a message again under its own id, however old it is.
    Messages(Vec<Uuid>),
}

impl Selection {
    /// The times of appending, [from, to), outside of which nothing is looked for; `None`: no bound.
    fn searched(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        match self {
            Self::Time { from, to } => (Some(*from), Some(*to)),
            Self::Ids { .. } => (None, None),
            Self::Messages(ids) => (day_before_oldest(ids), None),
        }
    }
}

/// The beginning of the day before the oldest of these ids; `None` when not every id says when it was made.
fn day_before_oldest(ids: &[Uuid]) -> Option<DateTime<Utc>> {
    let times: Option<Vec<_>> = ids.iter().map(made_at).collect();
    let oldest = times?.into_iter().min()?;
    oldest.date_naive().and_hms_opt(0, 0, 0)?.and_utc().checked_sub_days(Days::new(DAYS_BEFORE_ID))
}

/// When an id was made, where it says so.
fn made_at(id: &Uuid) -> Option<DateTime<Utc>> {
    let is_v7 = id.get_version_num() == 7;
    let (seconds, nanos) = id.get_timestamp().filter(|_| is_v7)?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// How many rows of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCount {
    /// Full name.
    pub topic: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// What is chosen, and whether it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Republication {
    /// Rows in all.
    pub rows: u64,
    /// By topic, in the order of names.
    pub topics: Vec<TopicCount>,
    /// When the oldest was appended first; `None` when nothing is chosen.
    pub first_at: Option<DateTime<Utc>>,
    /// When the newest was appended first.
    pub last_at: Option<DateTime<Utc>>,
    /// Rows appended before this were not looked at; `None`: none.
    pub searched_from: Option<DateTime<Utc>>,
    /// Rows appended at or after this were not looked at; `None`: none.
    pub searched_to: Option<DateTime<Utc>>,
    /// Whether they are appended anew (once the transaction commits) or only counted.
    pub applied: bool,
}

/// Why nothing was chosen or appended.
#[derive(Debug, thiserror::Error)]
pub enum RepublishError {
    /// More rows than allowed.
    #[error("more than {rows_max} rows are chosen: choose a shorter range, or several one after the other")]
    TooMany {
        /// The bound.
        rows_max: u32,
    },
    /// A bound that is no bound.
    #[error("{0} rows can not be republished at once: 1 to {ROWS_MAX}")]
    BadLimit(u32),
    /// The database refused or is away.
    #[error("the outbox could not be read or written")]
    Database(#[from] sqlx::Error),
}

/// What [`apply`] would append; changes nothing.
///
/// # Errors
/// [`RepublishError::TooMany`] when more than `rows_max` (1 to [`ROWS_MAX`]) rows are chosen; what the database said.
pub async fn plan(
    connection: &mut PgConnection,
    selection: &Selection,
    rows_max: u32,
) -> Result<Republication, RepublishError> {
    call(connection, selection, rows_max, false).await
}

/// Appends the chosen messages anew in the caller's transaction (READ COMMITTED), unchanged, in the order of each key.
///
/// A message that the outbox holds several times is taken once. Rows that are not published yet come before their
/// repetition, so their order holds too.
///
/// # Errors
/// As [`plan`]; then nothing is appended and the transaction has failed.
pub async fn apply(
    connection: &mut PgConnection,
    selection: &Selection,
    rows_max: u32,
) -> Result<Republication, RepublishError> {
    call(connection, selection, rows_max, true).await
}

struct Counted {
    count: TopicCount,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

impl FromRow<'_, PgRow> for Counted {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        let count = TopicCount {
            topic: row.try_get("topic")?,
            rows: unsigned(row.try_get("rows")?),
            bytes: unsigned(row.try_get("bytes")?),
        };
        Ok(Self { count, first_at: row.try_get("first_at")?, last_at: row.try_get("last_at")? })
    }
}

async fn call(
    connection: &mut PgConnection,
    selection: &Selection,
    rows_max: u32,
    apply: bool,
) -> Result<Republication, RepublishError> {
    if !(1..=ROWS_MAX).contains(&rows_max) {
        return Err(RepublishError::BadLimit(rows_max));
    }
    let (searched_from, searched_to) = selection.searched();
    let (row_ids, messages) = match selection {
        Selection::Time { .. } => (None, None),
        Selection::Ids { from, to } => (Some((from, to)), None),
        Selection::Messages(ids) => (None, Some(ids)),
    };
    // Outside a transaction this says nothing and harms nothing.
    sqlx::query("select set_config('statement_timeout', $1, true)")
        .bind(STATEMENT_TIMEOUT_MS.to_string())
        .execute(&mut *connection)
        .await?;
    let counted: Result<Vec<Counted>, sqlx::Error> =
        sqlx::query_as("select * from outbox_republish($1, $2, $3, $4, $5, $6, $7)")
            .bind(searched_from)
            .bind(searched_to)
            .bind(row_ids.map(|(from, _)| from))
            .bind(row_ids.map(|(_, to)| to))
            .bind(messages)
            .bind(i32::try_from(rows_max).unwrap_or(i32::MAX))
            .bind(apply)
            .fetch_all(connection)
            .await;
    let counted = counted.map_err(|error| match error.as_database_error().and_then(|e| e.code()) {
        Some(code) if code == TOO_MANY => RepublishError::TooMany { rows_max },
        _ => RepublishError::Database(error),
    })?;
    Ok(Republication {
        rows: counted.iter().map(|topic| topic.count.rows).sum(),
        first_at: counted.iter().map(|topic| topic.first_at).min(),
        last_at: counted.iter().map(|topic| topic.last_at).max(),
        topics: counted.into_iter().map(|topic| topic.count).collect(),
        searched_from,
        searched_to,
        applied: apply,
    })
}
