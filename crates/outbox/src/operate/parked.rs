//! Parked keys, and what is held behind them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::{OperateError, Page, PageRequest, key_shown};

/// Held messages that are shown of one key.
const HELD_SHOWN_MAX: i64 = 500;

/// A parked key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ParkedKey {
    /// The consumer group.
    pub group: String,
    /// The key, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// `retrying`, `draining` or `blocked`.
    pub state: String,
    /// The tier its head is on; 0 for none.
    pub tier: i16,
    /// When the head is due.
    pub due_at: Option<DateTime<Utc>>,
    /// How often the head was tried.
    pub attempts: i32,
    /// What the head failed with last.
    pub error_class: Option<String>,
    /// The details.
    pub error_message: Option<String>,
    /// What blocks the key, or is being replayed.
    pub dead_letter_id: Option<Uuid>,
    /// Messages that wait.
    pub held_count: i64,
    /// Their bytes.
    pub held_bytes: i64,
    /// Since when.
    pub parked_at: DateTime<Utc>,
}

/// A parked key with the first 500 messages behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ParkedDetail {
    /// The key.
    #[serde(flatten)]
    pub parked: ParkedKey,
    /// Message id of the head.
    pub head_message_id: Option<Uuid>,
    /// What waits, in its order.
    pub held: Vec<HeldMessage>,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct HeldMessage {
    /// `ce_id`.
    pub message_id: Option<Uuid>,
    /// `ce_type`.
    pub kind: Option<String>,
    /// Where it lay, with prefix.
    pub topic: String,
    /// Where it lay.
    pub partition: i32,
    /// Where it lay.
    pub offset: i64,
    /// Since when it waits.
    pub held_at: DateTime<Utc>,
    /// Its size.
    pub bytes: i64,
}

/// Which parked keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParkedFilter {
    /// The consumer group.
    pub group: Option<String>,
    /// `retrying`, `draining` or `blocked`.
    pub state: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    consumer_group: String,
    key: Vec<u8>,
    state: String,
    tier: i16,
    due_at: Option<DateTime<Utc>>,
    attempts: i32,
    error_class: Option<String>,
    error_message: Option<String>,
    dead_letter_id: Option<Uuid>,
    held_count: i64,
    held_bytes: i64,
    parked_at: DateTime<Utc>,
    head_message_id: Option<Uuid>,
}

impl Row {
    fn shown(self) -> ParkedKey {
        let (key, key_base64) = key_shown(Some(self.key));
        ParkedKey {
            group: self.consumer_group,
            key,
            key_base64,
            state: self.state,
            tier: self.tier,
            due_at: self.due_at,
            attempts: self.attempts,
            error_class: self.error_class,
            error_message: self.error_message,
            dead_letter_id: self.dead_letter_id,
            held_count: self.held_count,
            held_bytes: self.held_bytes,
            parked_at: self.parked_at,
        }
    }
}

/// Parked keys in the order of group and key.
///
/// # Errors
/// [`OperateError`].
pub async fn list(
    pool: &PgPool,
    filter: &ParkedFilter,
    page: &PageRequest,
) -> Result<Page<ParkedKey>, OperateError> {
    if filter.state.as_deref().is_some_and(|state| !["retrying", "draining", "blocked"].contains(&state)) {
        return Err(OperateError::invalid("state", "write retrying, draining or blocked"));
    }
    let after: Option<(String, Vec<u8>)> = page.after()?;
    let (after_group, after_key) = after.unwrap_or_default();
    let rows: Vec<Row> = sqlx::query_as(
        "select consumer_group, key, state, tier, due_at, attempts, error_class, error_message, dead_letter_id,
                held_count, held_bytes, parked_at, head_message_id
         from parked_keys
         where (consumer_group, key) > ($1, $2)
           and ($3::text is null or consumer_group = $3) and ($4::text is null or state = $4)
         order by consumer_group, key limit $5",
    )
    .bind(after_group)
    .bind(after_key)
    .bind(&filter.group)
    .bind(&filter.state)
    .bind(page.rows()?)
    .fetch_all(pool)
    .await?;
    let cut = Page::cut(rows, page, |row: &Row| (row.consumer_group.clone(), row.key.clone()));
    Ok(cut.map(Row::shown))
}

/// One parked key and what is held behind it.
///
/// # Errors
/// [`OperateError::Unknown`] when it is not parked.
pub async fn show(pool: &PgPool, group: &str, key: &[u8]) -> Result<ParkedDetail, OperateError> {
    let row: Option<Row> = sqlx::query_as(
        "select consumer_group, key, state, tier, due_at, attempts, error_class, error_message, dead_letter_id,
                held_count, held_bytes, parked_at, head_message_id
         from parked_keys where consumer_group = $1 and key = $2",
    )
    .bind(group)
    .bind(key)
    .fetch_optional(pool)
    .await?;
    let name = || format!("{group}/{}", String::from_utf8_lossy(key));
    let row = row.ok_or_else(|| OperateError::Unknown { what: "parked key", name: name() })?;
    let held = sqlx::query_as(
        "select message_id, dead_letter_header(headers, 'ce_type') as kind, topic, partition, \"offset\", held_at, bytes
         from held_messages where consumer_group = $1 and key = $2 order by id limit $3",
    )
    .bind(group)
    .bind(key)
    .bind(HELD_SHOWN_MAX)
    .fetch_all(pool)
    .await?;
    Ok(ParkedDetail { head_message_id: row.head_message_id, parked: row.shown(), held })
}
