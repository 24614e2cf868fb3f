//! A message on its way out: final bytes and headers, ready for the outbox.

use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::codec::{self, CodecError, Contract};
use crate::envelope::{Cause, Envelope};

/// A message to publish, before it knows its id, time, sequence and cause.
///
/// Made by domain-facing code (a saga's step, a command); finished by [`Draft::finish`]. `Debug` does not show the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    /// Topic without prefix, e.g. `inventory.commands`.
    pub topic: &'static str,
    /// Record key and `ce_subject`: the aggregate id as text.
    pub key: String,
    /// `ce_type`.
    pub kind: &'static str,
    /// The encoded value (Confluent frame and Avro datum), final bytes.
    pub payload: Vec<u8>,
}

impl Draft {
    /// Encodes `value` once, for good.
    ///
    /// # Errors
    /// [`CodecError`] when the value does not fit its schema (a fault of this program, never of its input).
    pub fn new<T: Contract>(
        topic: &'static str,
        key: impl Into<String>,
        value: &T,
    ) -> Result<Self, CodecError> {
        Ok(Self { topic, key: key.into(), kind: T::TYPE, payload: codec::encode(value)? })
    }

    /// Gives the draft its envelope. `id` is a new UUIDv7 (except when a stored message is told again),
    /// `sequence` the next of this topic and key, `source` the service (`/waybill/orders`).
    #[must_use]
    pub fn finish(self, id: Uuid, time: DateTime<Utc>, source: &str, sequence: i64, cause: Cause) -> Message {
        let envelope = Envelope {
            id,
            source: source.to_owned(),
            kind: self.kind.to_owned(),
            time,
            subject: self.key.clone(),
            cause,
            sequence,
        };
        Message { topic: self.topic.to_owned(), key: self.key, envelope, payload: self.payload }
    }
}

/// A message ready to be appended to the outbox. The topic has no prefix yet; the outbox adds its own.
/// `Debug` does not show the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic without prefix.
    pub topic: String,
    /// Record key.
    pub key: String,
    /// What the headers will say.
    pub envelope: Envelope,
    /// Final bytes.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("topic", &self.topic)
            .field("key", &self.key)
            .field("kind", &self.kind)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("key", &self.key)
            .field("envelope", &self.envelope)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}
