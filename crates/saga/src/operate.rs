//! What an operator sees of sagas and does to stuck ones: lists, one with its log, and the verbs retry, skip, abandon.
//!
//! The verbs work in the caller's transaction: the owner does the effects there too, as after [`Runner::advance`] in a
//! consumer, and the change's audit row commits with them.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::FromRow;
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;
use waybill_messaging::message::Message;
use waybill_outbox::operate::{Change, LIMIT_MAX, OperateError as Refusal, Page, PageRequest, Reason, audit};

use crate::error::SagaError;
use crate::input::{Ignored, Input, Verb};
use crate::instance::Advanced;
use crate::runner::Runner;
use crate::state::{Ending, Phase, State, Status};
use crate::store;

/// Log entries shown of one saga, the newest: ten times what the longest saga writes when every attempt is used up.
const LOG_ENTRIES_MAX: i64 = 1_000;
/// Between a saga's name and its key in a cursor and in the audit's target.
const SEPARATOR: char = '/';

/// Why an operator's wish was not done. Nothing is changed once the caller rolls back.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// There is no such saga, it is not in the state for it, the wish can not be read, or the database refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The saga could not be moved.
    #[error(transparent)]
    Saga(#[from] SagaError),
}

impl OperateError {
    /// What a caller can do about it; a saga that could not be moved is this program's or the database's trouble.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Saga(_) => Reason::Database,
        }
    }
}

impl From<sqlx::Error> for OperateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// Which sagas are listed; all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SagaFilter {
    /// In this state.
    pub state: Option<Status>,
    /// Of this name.
    pub name: Option<String>,
    /// Of this key.
    pub key: Option<Uuid>,
}

/// A saga as an operator sees it. All times are the database's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SagaView {
    /// Its name.
    pub saga: String,
    /// Its key.
    pub key: Uuid,
    /// The version of its definition.
    pub version: i32,
    /// Where it stands, in one word.
    #[schema(value_type = String, example = "stuck")]
    pub status: Status,
    /// The step it is at; `None` when it has ended.
    pub step: Option<String>,
    /// The step or its compensation.
    #[schema(value_type = Option<String>, example = "act")]
    pub phase: Option<Phase>,
    /// How often the present command has been sent; `None` when it is stuck or has ended.
    pub attempts: Option<u32>,
    /// When the present attempt is given up, or the back-off ends.
    pub due_at: Option<DateTime<Utc>>,
    /// The story it belongs to.
    pub correlation_id: Uuid,
    /// Why it turned round.
    pub reason: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was last moved.
    pub updated_at: DateTime<Utc>,
    /// What is in its way.
    pub stuck_why: Option<String>,
}

/// A saga with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SagaDetail {
    /// What the list has.
    #[serde(flatten)]
    pub saga: SagaView,
    /// Its data.
    pub data: Value,
    /// Its log, oldest first; of a very long one the newest 1,000 entries.
    pub log: Vec<LogLine>,
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// Grows along the saga, not without gaps.
    pub number: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What happened, as [`crate::log::Entry`] writes it.
    pub entry: Value,
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    saga: String,
    key: Uuid,
    version: i32,
    status: String,
    state: String,
    due_at: Option<DateTime<Utc>>,
    correlation_id: Uuid,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Sagas by name and key. Stuck and live ones have an index; asking for ended ones reads on until the page is full.
///
/// # Errors
/// [`OperateError`].
pub async fn list(
    pool: &PgPool,
    filter: &SagaFilter,
    page: &PageRequest,
) -> Result<Page<SagaView>, OperateError> {
    if !(1..=LIMIT_MAX).contains(&page.limit) {
        return Err(invalid("limit", format!("write a number in 1..={LIMIT_MAX}")));
    }
    let after = page.cursor.as_deref().map(place).transpose()?;
    let (name, key) = after.unwrap_or_default();
    let rows = store::instances_list(pool, filter, name, key, i64::from(page.limit) + 1).await?;
    let mut items = rows.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let wanted = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let more = items.len() > wanted;
    items.truncate(wanted);
    let next_cursor = items.last().filter(|_| more).map(|last| target(&last.saga, last.key));
    Ok(Page { items, next_cursor })
}

/// One saga with its data and its log.
///
/// # Errors
/// [`OperateError`]; [`Reason::NotFound`] when there is none.
pub async fn show(pool: &PgPool, saga: &str, key: Uuid) -> Result<SagaDetail, OperateError> {
    let (row, data) = store::instance_show(pool, saga, key).await?.ok_or_else(|| unknown(saga, key))?;
    let lines = store::log_newest(pool, saga, key, LOG_ENTRIES_MAX).await?;
    let bad = |column| move |error| unreadable(saga, key, column, error);
    let log = lines.into_iter().rev().map(|(number, at, entry)| {
        let entry = serde_json::from_str(&entry).map_err(bad("entry"))?;
        Ok::<_, OperateError>(LogLine { number, at, entry })
    });
    let log = log.collect::<Result<_, _>>()?;
    Ok(SagaDetail { saga: view(row)?, data: serde_json::from_str(&data).map_err(bad("data"))?, log })
}

/// One saga as the caller's transaction sees it, for the answer to a verb.
///
/// # Errors
/// [`OperateError`]; [`Reason::NotFound`] when there is none.
pub async fn view_in_tx(conn: &mut PgConnection, saga: &str, key: Uuid) -> Result<SagaView, OperateError> {
    let (row, _) = store::instance_show(conn, saga, key).await?.ok_or_else(|| unknown(saga, key))?;
    view(row)
}

/// A verb, with its audit row `sagas.VERB` on `NAME/KEY`. Commands go to `out`; the caller does the effects, appends, and
/// commits.
///
/// [`Verb::Retry`] sends a stuck saga's command again, with a new count of attempts. [`Verb::Skip`] takes a stuck saga's
/// step, or its compensation, as done by hand, and goes on. [`Verb::Abandon`] ends a saga that has not ended, as it
/// stands: what it has done stays, and is the operator's to settle; a reply that comes later changes nothing.
///
/// # Errors
/// [`OperateError`]; [`Reason::Conflict`] when it is not stuck, or, to be abandoned, has ended.
pub async fn operate<D: Serialize + DeserializeOwned + Clone + Send + Sync>(
    runner: &Runner<D>,
    conn: &mut PgConnection,
    key: Uuid,
    verb: Verb,
    change: &Change,
    out: &mut Vec<Message>,
) -> Result<Advanced<D>, OperateError> {
    let saga = runner.saga();
    // The lock is this load's; the advance finds the instance as it is here.
    let found = runner.load(conn, key).await?.ok_or_else(|| unknown(saga, key))?;
    let before = found.state.status();
    let inputs = vec![(key, Input::Operator(verb), found.cause)];
    let advanced = runner.advance(conn, inputs, out).await?.pop().ok_or_else(|| unknown(saga, key))?;
    if let Some(why) = advanced.ignored {
        let wanted = if why == Ignored::Ended { "live" } else { "stuck" };
        let (name, state) = (target(saga, key), before.as_str().to_owned());
        return Err(Refusal::State { what: "saga", name, state, wanted }.into());
    }
    let outcome = advanced.status.as_str();
    audit::insert_in_tx(conn, change, action(verb), &target(saga, key), outcome).await?;
    Ok(advanced)
}

fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Retry => "sagas.retry",
        Verb::Skip => "sagas.skip",
        Verb::Abandon => "sagas.abandon",
    }
}

fn view(row: Row) -> Result<SagaView, OperateError> {
    let bad = |column| {
        let (saga, key) = (row.saga.clone(), row.key);
        move |error| unreadable(&saga, key, column, error)
    };
    let state: State = serde_json::from_str(&row.state).map_err(bad("state"))?;
    let status = serde_json::from_value(Value::String(row.status.clone())).map_err(bad("status"))?;
    let (step, phase) = state.at().map(|(step, phase)| (step.to_owned(), phase)).unzip();
    let (attempts, reason, stuck_why) = match state {
        State::Acting { attempt, .. } => (Some(attempt), None, None),
        State::Compensating { attempt, reason, .. } => (Some(attempt), Some(reason), None),
        State::StuckActing { why, .. } => (None, None, Some(why)),
        State::StuckCompensating { why, reason, .. } => (None, Some(reason), Some(why)),
        State::Ended(Ending::Compensated { reason }) => (None, Some(reason), None),
        State::Ended(Ending::Completed | Ending::Abandoned) => (None, None, None),
    };
    let Row { saga, key, version, due_at, correlation_id, created_at, updated_at, .. } = row;
    Ok(SagaView {
        saga,
        key,
        version,
        status,
        step,
        phase,
        attempts,
        due_at,
        correlation_id,
        reason,
        created_at,
        updated_at,
        stuck_why,
    })
}

fn target(saga: &str, key: Uuid) -> String {
    format!("{saga}{SEPARATOR}{key}")
}

fn place(cursor: &str) -> Result<(String, Uuid), OperateError> {
    cursor
        .rsplit_once(SEPARATOR)
        .and_then(|(saga, key)| Some((saga.to_owned(), key.parse().ok()?)))
        .ok_or_else(|| invalid("cursor", "it is no cursor of this list".to_owned()))
}

fn invalid(field: &'static str, why: String) -> OperateError {
    Refusal::Invalid { field, why }.into()
}

fn unknown(saga: &str, key: Uuid) -> OperateError {
    Refusal::Unknown { what: "saga", name: target(saga, key) }.into()
}

fn unreadable(saga: &str, key: Uuid, column: &'static str, error: serde_json::Error) -> OperateError {
    let what = format!("{column} of saga {} can not be read: {error}", target(saga, key));
    sqlx::Error::Decode(what.into()).into()
}
