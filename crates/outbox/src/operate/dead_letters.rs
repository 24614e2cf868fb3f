//! Dead letters as an operator works with them: look, group, plan, edit, discard.

mod change;
mod look;
mod plan;
mod values;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::retry::header_changes::HeaderChanges;

pub use self::change::{EDITS_MAX, Edit, discard, edit, edit_many};
pub use self::look::{failure_groups, list, show};
pub use self::plan::plan;
pub use self::values::{VALUES_MAX, kinds, values};

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadLetter {
    /// Its id; a UUIDv7.
    pub id: Uuid,
    /// The consumer group.
    pub group: String,
    /// `open`, `replaying`, `resolved` or `discarded`.
    pub state: String,
    /// Where it first lay, with prefix.
    pub topic: String,
    /// Where it first lay.
    pub partition: i32,
    /// Where it first lay.
    pub offset: i64,
    /// Kafka's timestamp.
    pub record_time: Option<DateTime<Utc>>,
    /// `ce_id`, when it could be read.
    pub message_id: Option<Uuid>,
    /// `ce_type`, when it could be read.
    pub kind: Option<String>,
    /// The key, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The class it failed with last.
    pub error_class: String,
    /// The details.
    pub error_message: String,
    /// See [`FailureGroup`].
    pub failure_group: String,
    /// How often it was tried, replays included.
    pub attempts: i32,
    /// When it failed first.
    pub first_failed_at: DateTime<Utc>,
    /// When it failed last.
    pub last_failed_at: DateTime<Utc>,
    /// The story it belongs to.
    pub correlation_id: Option<Uuid>,
    /// The trace it came with.
    pub trace_id: Option<String>,
    /// Which appearance of the message it is; 0 is the main topic's.
    pub hop: i16,
    /// Whether a replay would send another payload, or other headers.
    pub patched: bool,
    /// Size of the original payload; `None` for a tombstone.
    pub payload_bytes: Option<i32>,
}

/// A dead letter with everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadLetterDetail {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Every header in order: `{"name", "value"}`, or `{"name", "base64"}` when the value is no text.
    pub headers: Value,
    /// The original bytes.
    pub payload_base64: Option<String>,
    /// What a replay sends instead.
    pub patch: Option<Patch>,
    /// How often it was sent again by a replay, newest first; the last 20.
    pub replays: Vec<ReplayOfLetter>,
    /// Who gave it up, as the audit tells; nothing unless it is discarded.
    #[serde(default)]
    pub discarded: Option<GivenUp>,
}

/// Who gave a letter up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GivenUp {
    /// Who.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// What a replay would send of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LetterValue {
    /// The letter.
    pub id: Uuid,
    /// `open`, `replaying`, `resolved` or `discarded`.
    pub state: String,
    /// `ce_type`, when it could be read.
    pub kind: Option<String>,
    /// Whether it is a patch's, not the original.
    pub patched: bool,
    /// When the patch was made; what `expect_edited_at` of an edit is compared with.
    pub edited_at: Option<DateTime<Utc>>,
    /// The whole value; `None` for a tombstone.
    pub payload_base64: Option<String>,
}

/// What stands beside the original: a payload, headers or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Patch {
    /// The whole framed value; null: the original's.
    pub payload_base64: Option<String>,
    /// Headers that are set, and, with null, taken away.
    #[schema(value_type = Option<std::collections::BTreeMap<String, Option<String>>>)]
    pub headers: Option<HeaderChanges>,
    /// Who wrote it.
    pub edited_by: String,
    /// When.
    pub edited_at: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// A letter's part in a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct ReplayOfLetter {
    /// The replay.
    pub operation: Uuid,
    /// When it was sent; `None` when it was not (yet).
    pub at: Option<DateTime<Utc>>,
    /// `pending`, `sent`, `resolved`, `failed` or `skipped`.
    pub outcome: String,
    /// Why it failed or was skipped.
    pub why: Option<String>,
}

/// Dead letters that failed alike: same group, type, error class and normalised message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct FailureGroup {
    /// 16 hexadecimal digits over group, kind, error class and normalised message.
    pub failure_group: String,
    /// The consumer group.
    pub group: String,
    /// `ce_type`.
    pub kind: Option<String>,
    /// The class.
    pub error_class: String,
    /// The message with placeholders for what differs: quoted texts, UUIDs, numbers.
    pub message: String,
    /// Letters.
    pub count: i64,
    /// Distinct keys.
    pub keys: i64,
    /// The earliest first failure.
    pub first_failed_at: DateTime<Utc>,
    /// The latest failure.
    pub last_failed_at: DateTime<Utc>,
    /// The newest letter of the group.
    pub example: Uuid,
}

/// What a replay of a selection would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Plan {
    /// Letters.
    pub total: i64,
    /// Distinct keys.
    pub keys: i64,
    /// By consumer group.
    pub by_group: Vec<GroupCount>,
    /// By failure group, the largest 100.
    pub by_failure_group: Vec<FailureGroupCount>,
    /// By key, the largest 100.
    pub by_key: Vec<KeyCount>,
    /// Letters without a usable key or readable headers, or too large to be sent: discard them, or edit payload or headers.
    pub can_not_travel: i64,
    /// The earliest last failure.
    pub oldest: Option<DateTime<Utc>>,
    /// The latest last failure.
    pub newest: Option<DateTime<Utc>>,
}

/// Letters of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct GroupCount {
    /// The consumer group.
    pub group: String,
    /// Letters.
    pub count: i64,
}

/// Letters of a failure group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct FailureGroupCount {
    /// See [`FailureGroup`].
    pub failure_group: String,
    /// Letters.
    pub count: i64,
}

/// Letters of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyCount {
    /// The key, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Letters.
    pub count: i64,
    /// The state of the key, when it is parked.
    pub parked_state: Option<String>,
    /// Messages that wait behind it.
    pub held: i64,
}
