//! What an operator can do with a dead letter: send it round again, or give it up, so that its key goes on.

use std::time::Duration;

use chrono::Utc;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;
use waybill_messaging::headers::TRACEPARENT;
use waybill_messaging::record::Record;
use waybill_telemetry::trace::TraceContext;

use super::decide::{self, ATTEMPTS_AT_REPLAY, Goes, Refusal};
use super::header_changes::{self, HeaderChanges};
use super::headers::{self, Travel};
use super::key_state::KeyState;
use super::policy::{Policy, main_topic, retry_topic};
use super::settle::{self, Head};
use super::store::{self, ParkedRow};
use crate::dead_letters::headers_read;
use crate::inbox::incoming::usable_key;

/// The trace a replayed message came with at first; `traceparent` is the replay's own.
pub const REPLAY_OF_TRACEPARENT: &str = "replay_of_traceparent";
/// The replay operation a message was sent by.
pub const REPLAY_ID: &str = "replay_id";

/// Why it was not done. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The database refused.
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    /// There is no such dead letter.
    #[error("there is no dead letter {0}")]
    Unknown(Uuid),
    /// It is not open: somebody is at it, or was.
    #[error("dead letter {id} is {state}, not open")]
    NotOpen {
        /// The dead letter.
        id: Uuid,
        /// Its state.
        state: String,
    },
    /// It has no key that could be parked, or does not fit through the outbox.
    #[error("dead letter {0} has no usable key or is too large to be sent again; discard it")]
    CanNotTravel(Uuid),
    /// It is no message: its headers can not be read, so it would fail again, and block a key it does not belong to.
    #[error(
        "dead letter {0} has headers that can not be read, and would fail again; edit its headers or discard it"
    )]
    Unreadable(Uuid),
    /// It came from a topic that the group does not read (any more).
    #[error("dead letter {id} would have to go to {topic}, which is no retry topic of its group; discard it")]
    NoTopic {
        /// The dead letter.
        id: Uuid,
        /// Without prefix.
        topic: String,
    },
    /// Not now.
    #[error("it can not be done now")]
    Refused(#[from] Refusal),
}

/// A dead letter as an operator takes it.
struct Letter {
    id: Uuid,
    group: String,
    hop: i16,
    class: String,
    why: String,
    first_failed_at: chrono::DateTime<Utc>,
    message_id: Option<Uuid>,
    record: Record,
    /// The parked row's state and letter, when the key is parked; locked.
    parked: Option<(KeyState, Option<Uuid>)>,
}

impl Letter {
    fn state(&self) -> Option<KeyState> {
        self.parked.map(|(state, _)| state)
    }

    fn blocks(&self) -> bool {
        self.parked.is_some_and(|(_, letter)| letter == Some(self.id))
    }
}

/// Sends an open dead letter to its group's first retry topic, due at once, as the next appearance of its message: only
/// that group sees it. Its key is retrying until the verdict. The letter is *replaying*, then resolved, or open again.
/// A patch is sent instead of the original payload and headers. Returns the number of the appearance.
///
/// # Errors
/// [`OperateError`]; of those but the database's, nothing is written.
pub async fn replay_in_tx(
    conn: &mut PgConnection,
    prefix: &str,
    policy: &Policy,
    id: Uuid,
) -> Result<i16, OperateError> {
    send_in_tx(conn, prefix, policy, id, None).await
}

/// As [`replay_in_tx`], as a part of a replay operation.
pub(crate) async fn send_in_tx(
    conn: &mut PgConnection,
    prefix: &str,
    policy: &Policy,
    id: Uuid,
    operation: Option<Uuid>,
) -> Result<i16, OperateError> {
    let mut letter = letter_lock_in_tx(conn, id).await?;
    let decision = decide::replay(policy, letter.state(), letter.blocks(), letter.hop)?;
    let Goes::Retry { tier, hop } = decision.record else { return Err(Refusal::NoTiers.into()) };
    let name = retry_topic(main_topic(prefix, &letter.record.topic, &letter.group), &letter.group, tier);
    let topic = format!("{prefix}{name}");
    if !policy.has_topic(&name) {
        return Err(OperateError::NoTopic { id, topic: name });
    }
    patch_apply(conn, id, &mut letter.record).await?;
    if waybill_messaging::headers::decode(&letter.record).is_err() {
        return Err(OperateError::Unreadable(id));
    }
    story_begin(&mut letter.record, operation);
    let key = usable_key(&letter.record).ok_or(OperateError::CanNotTravel(id))?.to_vec();
    if !headers::can_travel(&letter.record, &topic) {
        return Err(OperateError::CanNotTravel(id));
    }
    let now = Utc::now();
    let travel = Travel {
        hop,
        tier,
        attempts: ATTEMPTS_AT_REPLAY,
        first_failed_at: letter.first_failed_at,
        last_failed_at: now,
        error_class: letter.class.clone(),
        error_message: letter.why.clone(),
    };
    let headers = headers::write(&letter.record, &letter.group, &travel);
    let message_id = letter.message_id.unwrap_or_default();
    let row = ParkedRow {
        key,
        state: KeyState::Retrying { tier },
        delay: Some(Duration::ZERO),
        head: (letter.message_id, hop),
        attempts: i32::from(ATTEMPTS_AT_REPLAY),
        first_failed_at: letter.first_failed_at,
        last_failed_at: now,
        error_class: letter.class,
        error_message: letter.why,
        dead_letter_id: Some(id),
    };
    if letter.parked.is_some() {
        store::parked_update_in_tx(conn, &letter.group, &row).await?;
    } else if store::parked_insert_in_tx(conn, &letter.group, std::slice::from_ref(&row)).await? == 0 {
        return Err(Refusal::KeyBusy.into());
    }
    let head = Head { id: message_id, topic, delay: Duration::ZERO, headers, record: &letter.record };
    settle::append(conn, &[head]).await?;
    letter_state_in_tx(conn, id, "replaying").await?;
    Ok(hop)
}

/// Puts a letter's patch, when it has one, into its record: payload, headers or both; tells whether it did.
pub(crate) async fn patch_apply(
    conn: &mut PgConnection,
    id: Uuid,
    record: &mut Record,
) -> Result<bool, sqlx::Error> {
    type Patch = (Option<Vec<u8>>, Option<Json<HeaderChanges>>);
    let patch: Option<Patch> =
        sqlx::query_as("select payload, headers from dead_letter_patches where dead_letter_id = $1")
            .bind(id)
            .fetch_optional(conn)
            .await?;
    let Some((payload, changes)) = patch else { return Ok(false) };
    if let Some(payload) = payload {
        record.payload = Some(payload.into());
    }
    if let Some(Json(changes)) = changes {
        header_changes::apply(&changes, record);
    }
    Ok(true)
}

/// A fresh trace, linked to the one the message came with, and the operation's id: a replay is a story of its own.
pub(crate) fn story_begin(record: &mut Record, operation: Option<Uuid>) {
    let old = record.header(TRACEPARENT).map(str::to_owned);
    record
        .headers
        .retain(|(name, _)| ![TRACEPARENT, REPLAY_OF_TRACEPARENT, REPLAY_ID].contains(&name.as_str()));
    let mut add = |name: &str, value: String| record.headers.push((name.to_owned(), value.into_bytes()));
    add(TRACEPARENT, TraceContext::new_root().traceparent());
    if let Some(old) = old {
        add(REPLAY_OF_TRACEPARENT, old);
    }
    if let Some(operation) = operation {
        add(REPLAY_ID, operation.to_string());
    }
}

/// Gives an open dead letter up. When it blocks its key, the held messages are drained.
///
/// # Errors
/// [`OperateError`].
pub async fn discard_in_tx(conn: &mut PgConnection, id: Uuid) -> Result<(), OperateError> {
    let letter = letter_lock_in_tx(conn, id).await?;
    letter_state_in_tx(conn, id, "discarded").await?;
    let after = decide::discard(letter.state(), letter.blocks());
    if let (Some(key), true) = (usable_key(&letter.record), after != letter.state()) {
        store::parked_drain_in_tx(conn, &letter.group, key).await?;
    }
    Ok(())
}

/// Locks an open letter and before it its key, as everybody does.
async fn letter_lock_in_tx(conn: &mut PgConnection, id: Uuid) -> Result<Letter, OperateError> {
    let parked: Option<(String, i16, Option<Uuid>)> = sqlx::query_as(
        "select p.state, p.tier, p.dead_letter_id
         from dead_letters d join parked_keys p on p.consumer_group = d.consumer_group and p.key = d.key
         where d.id = $1 for update of p",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await?;
    type Row = (String, String, i16, String, String, chrono::DateTime<Utc>, Option<Uuid>);
    let row: Option<Row> = sqlx::query_as(
        "select state, consumer_group, hop, error_class, error_message, first_failed_at, message_id
         from dead_letters where id = $1 for update",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await?;
    let (state, group, hop, class, why, first_failed_at, message_id) =
        row.ok_or(OperateError::Unknown(id))?;
    if state != "open" {
        return Err(OperateError::NotOpen { id, state });
    }
    let parked = parked.and_then(|(state, tier, letter)| Some((KeyState::read(&state, tier)?, letter)));
    let record = letter_record(conn, id).await?;
    Ok(Letter { id, group, hop, class, why, first_failed_at, message_id, record, parked })
}

pub(crate) async fn letter_record(conn: &mut PgConnection, id: Uuid) -> Result<Record, sqlx::Error> {
    type Row = (String, i32, i64, Option<chrono::DateTime<Utc>>, Option<Vec<u8>>, Value, Option<Vec<u8>>);
    let (topic, partition, offset, time, key, headers, payload): Row = sqlx::query_as(
        "select topic, partition, \"offset\", record_time, key, headers, payload from dead_letters where id = $1",
    )
    .bind(id)
    .fetch_one(conn)
    .await?;
    let headers = headers_read(&headers)
        .ok_or_else(|| sqlx::Error::Protocol(format!("dead letter {id} has headers of another form")))?;
    Ok(Record {
        topic,
        partition,
        offset,
        timestamp_ms: time.map(|time| time.timestamp_millis()),
        key: key.map(Into::into),
        headers,
        payload: payload.map(Into::into),
    })
}

async fn letter_state_in_tx(
    conn: &mut PgConnection,
    id: Uuid,
    state: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::query("update dead_letters set state = $2 where id = $1")
        .bind(id)
        .bind(state)
        .execute(conn)
        .await
        .map(|_| ())
}
