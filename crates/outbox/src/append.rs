//! Messages into the outbox, in the transaction that also writes what they tell of.
//!
//! The caller has locked, or inserted, or version-checked the aggregate of each message before it appends: then an
//! earlier event of an aggregate is committed before the later one is inserted, and the relay keeps their order.

use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::headers;
use waybill_messaging::message::Message;

/// Longest record key in bytes, as the table checks: keys are ids.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest header object in bytes, as the table checks: an envelope takes some 500.
pub const HEADERS_BYTES_MAX: usize = 32_768;
/// Longest payload in bytes of a message, as `outbox_append` checks: with key and headers below every topic's
/// `max.message.bytes` (1,048,588), so that the broker can not refuse a record and let its successors pass it.
pub const PAYLOAD_BYTES_MAX: usize = 917_504;
/// Longest payload in bytes that goes to a retry or dead letter topic, as the table checks: whatever a topic of the
/// default size holds, from whatever producer, unless it was compressed. Those topics take more
/// (`schemas/topics.toml`).
pub const CARRIED_PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Longest topic name Kafka takes.
pub const TOPIC_BYTES_MAX: usize = 249;

/// A message that can not be appended because a part of it is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {part} of a {kind} message for {topic} has {bytes} bytes, and the outbox takes at most {bytes_max}; send less in it"
)]
pub struct LimitError {
    /// The message's type.
    pub kind: String,
    /// Its topic, without prefix.
    pub topic: String,
    /// Which part: key, headers, payload or topic name.
    pub part: &'static str,
    /// Its size in bytes.
    pub bytes: usize,
    /// The limit in bytes.
    pub bytes_max: usize,
}

/// Checks every message against the limits of the outbox.
///
/// # Errors
/// [`LimitError`] for the first part that is too large.
pub fn limits_check(messages: &[Message]) -> Result<(), LimitError> {
    for message in messages {
        let headers_bytes = headers::to_json(&message.envelope).len();
        limits_check_sized(message, headers_bytes)?;
    }
    Ok(())
}

fn limits_check_sized(message: &Message, headers_bytes: usize) -> Result<(), LimitError> {
    let parts = [
        ("key", message.key.len(), KEY_BYTES_MAX),
        ("headers", headers_bytes, HEADERS_BYTES_MAX),
        ("payload", message.payload.len(), PAYLOAD_BYTES_MAX),
        ("topic name", message.topic.len(), TOPIC_BYTES_MAX),
    ];
    match parts.into_iter().find(|(_, bytes, bytes_max)| bytes > bytes_max) {
        None => Ok(()),
        Some((part, bytes, bytes_max)) => Err(LimitError {
            kind: message.envelope.kind.clone(),
            topic: message.topic.clone(),
            part,
            bytes,
            bytes_max,
        }),
    }
}

/// The arguments of the SQL function `outbox_append`, one array each: for statements that append together with other
/// work in one round trip. Bind them in this order as `uuid[], text[], bytea[], text[], bytea[]`.
///
/// The table's own checks refuse what [`limits_check`] would.
#[derive(Clone, PartialEq, Eq)]
pub struct AppendArrays {
    /// Message ids.
    pub message_ids: Vec<Uuid>,
    /// Topics, with prefix.
    pub topics: Vec<String>,
    /// Record keys.
    pub keys: Vec<Vec<u8>>,
    /// Headers, a JSON object each.
    pub headers: Vec<String>,
    /// Final bytes.
    pub payloads: Vec<Vec<u8>>,
}

impl AppendArrays {
    /// The messages in order, each topic with `prefix` before it.
    #[must_use]
    pub fn new(prefix: &str, messages: &[Message]) -> Self {
        Self {
            message_ids: messages.iter().map(|m| m.envelope.id).collect(),
            topics: messages.iter().map(|m| format!("{prefix}{}", m.topic)).collect(),
            keys: messages.iter().map(|m| m.key.clone().into_bytes()).collect(),
            headers: messages.iter().map(|m| headers::to_json(&m.envelope)).collect(),
            payloads: messages.iter().map(|m| m.payload.clone()).collect(),
        }
    }
}

impl std::fmt::Debug for AppendArrays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppendArrays").field("message_ids", &self.message_ids).finish_non_exhaustive()
    }
}

/// Appends messages in their order, in one statement of the caller's transaction; none when there are none.
///
/// They are published if and only if the transaction commits: at least once, in order per key.
///
/// # Errors
/// `sqlx::Error::Encode` around a [`LimitError`] when a message is too large (nothing is written then), else what the
/// database said.
pub async fn append(conn: &mut PgConnection, prefix: &str, messages: &[Message]) -> Result<(), sqlx::Error> {
    if messages.is_empty() {
        return Ok(());
    }
    let arrays = AppendArrays::new(prefix, messages);
    for (message, headers) in messages.iter().zip(&arrays.headers) {
        limits_check_sized(message, headers.len()).map_err(|error| sqlx::Error::Encode(error.into()))?;
    }
    sqlx::query("select outbox_append($1, $2, $3, $4, $5)")
        .bind(arrays.message_ids)
        .bind(arrays.topics)
        .bind(arrays.keys)
        .bind(arrays.headers)
        .bind(arrays.payloads)
        .execute(conn)
        .await?;
    Ok(())
}

/// [`append`] with the prefix remembered.
#[derive(Debug, Clone)]
pub struct Appender {
    /// Put before every topic.
    pub topic_prefix: String,
}

impl Appender {
    /// Appends to topics with this prefix.
    #[must_use]
    pub fn new(topic_prefix: &str) -> Self {
        Self { topic_prefix: topic_prefix.to_owned() }
    }

    /// As [`append`].
    ///
    /// # Errors
    /// As [`append`].
    pub async fn append(&self, conn: &mut PgConnection, messages: &[Message]) -> Result<(), sqlx::Error> {
        append(conn, &self.topic_prefix, messages).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_messaging::envelope::{Cause, Envelope};

    fn message(key_bytes: usize, payload_bytes: usize) -> Message {
        let key = "k".repeat(key_bytes);
        let cause = Cause { correlation_id: Uuid::nil(), causation_id: None, trace: None };
        let envelope = Envelope {
            id: Uuid::nil(),
            source: "/waybill/orders".to_owned(),
            kind: "OrderPlaced".to_owned(),
            time: chrono::DateTime::UNIX_EPOCH,
            subject: key.clone(),
            cause,
            sequence: 1,
        };
        Message { topic: "orders.events".to_owned(), key, envelope, payload: vec![0; payload_bytes] }
    }

    #[test]
    fn what_is_too_large_is_named_with_its_size() {
        assert_eq!(limits_check(&[message(KEY_BYTES_MAX, PAYLOAD_BYTES_MAX)]), Ok(()));
        let error = limits_check(&[message(1, 1), message(1, PAYLOAD_BYTES_MAX + 1)]).unwrap_err();
        assert_eq!((error.part, error.bytes), ("payload", PAYLOAD_BYTES_MAX + 1));
        let text = error.to_string();
        assert!(text.contains("OrderPlaced") && text.contains("917505") && text.contains("917504"), "{text}");
        assert_eq!(limits_check(&[message(KEY_BYTES_MAX + 1, 1)]).unwrap_err().part, "key");
    }

    #[test]
    fn debug_shows_no_payload() {
        let mut message = message(1, 0);
        message.payload = b"secret".to_vec();
        let shown = format!("{message:?} {:?}", AppendArrays::new("", std::slice::from_ref(&message)));
        assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
    }
}
