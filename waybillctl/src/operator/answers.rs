//! What the operator API answers, as far as this program looks into it. Times are kept as they came.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::{KEY_BASE64_PREFIX, key_word};

/// A key that is text, or bytes.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Key {
    key: Option<String>,
    key_base64: Option<String>,
}

impl Key {
    /// In one word, as `parked show` and `--key` take it.
    pub(crate) fn shown(&self) -> String {
        match (&self.key, &self.key_base64) {
            (Some(text), _) => key_word(text.as_bytes()).into_owned(),
            (None, Some(bytes)) => format!("{KEY_BASE64_PREFIX}{bytes}"),
            (None, None) => "-".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeadLetter {
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) group: String,
    pub(crate) state: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) message_id: Option<String>,
    pub(crate) kind: Option<String>,
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) error_class: String,
    pub(crate) error_message: String,
    pub(crate) failure_group: Option<String>,
    pub(crate) attempts: i64,
    pub(crate) first_failed_at: String,
    pub(crate) last_failed_at: String,
    pub(crate) correlation_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    #[serde(default)]
    pub(crate) hop: i64,
    #[serde(default)]
    pub(crate) patched: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeadLetterDetail {
    #[serde(flatten)]
    pub(crate) letter: DeadLetter,
    #[serde(default)]
    pub(crate) headers: Vec<Header>,
    pub(crate) payload_base64: Option<String>,
    pub(crate) patch: Option<Patch>,
    #[serde(default)]
    pub(crate) replays: Vec<ReplayOfLetter>,
    pub(crate) discarded: Option<GivenUp>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GivenUp {
    pub(crate) by: String,
    pub(crate) at: String,
    pub(crate) reason: String,
}

/// What a replay would send of a letter.
#[derive(Debug, Deserialize)]
pub(crate) struct LetterValue {
    pub(crate) id: String,
    pub(crate) kind: Option<String>,
    /// Since when it is a patch.
    pub(crate) edited_at: Option<String>,
    pub(crate) payload_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) base64: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Patch {
    pub(crate) payload_base64: Option<String>,
    pub(crate) headers: Option<HeaderChanges>,
    pub(crate) edited_by: String,
    pub(crate) edited_at: String,
    pub(crate) reason: String,
}

/// A text is set, null takes the header away.
pub(crate) type HeaderChanges = BTreeMap<String, Option<String>>;

#[derive(Debug, Deserialize)]
pub(crate) struct ReplayOfLetter {
    pub(crate) operation: String,
    pub(crate) at: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) why: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FailureGroup {
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) failure_group: String,
    pub(crate) group: String,
    pub(crate) kind: Option<String>,
    pub(crate) error_class: String,
    pub(crate) message: String,
    pub(crate) count: u64,
    pub(crate) keys: u64,
    pub(crate) last_failed_at: String,
    pub(crate) example: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Plan {
    pub(crate) total: u64,
    pub(crate) keys: u64,
    #[serde(default)]
    pub(crate) by_group: Vec<GroupCount>,
    #[serde(default)]
    pub(crate) by_key: Vec<KeyCount>,
    #[serde(default)]
    pub(crate) can_not_travel: u64,
    pub(crate) oldest: Option<String>,
    pub(crate) newest: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GroupCount {
    pub(crate) group: String,
    pub(crate) count: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct KeyCount {
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) count: u64,
    pub(crate) parked_state: Option<String>,
    #[serde(default)]
    pub(crate) held: u64,
}

/// What a dry run answers. A list that is missing is no empty list.
#[derive(Debug, Deserialize)]
pub(crate) struct TriedLetters {
    pub(crate) items: Vec<Value>,
    /// How many the selection has.
    pub(crate) total: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Discarded {
    pub(crate) discarded: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Edited {
    pub(crate) edited: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Tried {
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) outcome: String,
    pub(crate) why: Option<String>,
    #[serde(default)]
    pub(crate) patched: bool,
    #[serde(default)]
    pub(crate) writes: Vec<Write>,
    #[serde(default)]
    pub(crate) messages: Vec<Said>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Write {
    pub(crate) table: String,
    pub(crate) operation: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    pub(crate) topic: String,
    pub(crate) key: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) payload_base64: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Replay {
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) total: u64,
    pub(crate) sent: u64,
    pub(crate) resolved: u64,
    pub(crate) failed: u64,
    #[serde(default)]
    pub(crate) skipped: u64,
    pub(crate) remaining: u64,
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) created_at: String,
    pub(crate) stop_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ParkedKey {
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) group: String,
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) state: String,
    pub(crate) tier: i64,
    pub(crate) due_at: Option<String>,
    pub(crate) attempts: i64,
    pub(crate) error_class: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) dead_letter_id: Option<String>,
    pub(crate) held_count: u64,
    pub(crate) held_bytes: u64,
    pub(crate) parked_at: String,
    #[serde(default)]
    pub(crate) held: Vec<Held>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Held {
    pub(crate) message_id: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) held_at: String,
    pub(crate) bytes: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OutboxStatus {
    pub(crate) position: Option<Position>,
    pub(crate) lease: Option<Lease>,
    pub(crate) oldest_unpublished_at: Option<String>,
    pub(crate) unpublished_rows: Option<u64>,
    #[serde(default)]
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Position {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) id: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Lease {
    pub(crate) owner: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) epoch: i64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Partition {
    pub(crate) name: String,
    #[serde(alias = "starts_at")]
    pub(crate) from: String,
    #[serde(alias = "ends_at")]
    pub(crate) to: String,
    pub(crate) rows_estimate: i64,
    pub(crate) bytes: u64,
    pub(crate) published: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Republication {
    pub(crate) rows: u64,
    #[serde(default)]
    pub(crate) topics: Vec<TopicCount>,
    pub(crate) first_at: Option<String>,
    pub(crate) last_at: Option<String>,
    pub(crate) searched_from: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TopicCount {
    pub(crate) topic: String,
    #[serde(alias = "rows")]
    pub(crate) count: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Saga {
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) saga: String,
    pub(crate) key: String,
    pub(crate) version: i64,
    pub(crate) status: String,
    pub(crate) step: Option<String>,
    pub(crate) phase: Option<String>,
    pub(crate) attempts: Option<i64>,
    pub(crate) due_at: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) stuck_why: Option<String>,
    #[serde(default)]
    pub(crate) data: Value,
    #[serde(default)]
    pub(crate) log: Vec<SagaLine>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SagaLine {
    pub(crate) number: i64,
    pub(crate) at: String,
    pub(crate) entry: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AuditEntry {
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) at: String,
    pub(crate) subject: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) reason: String,
    pub(crate) outcome: String,
}
