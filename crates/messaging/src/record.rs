//! A record as it came from Kafka: bytes, headers and where it lay.

use std::fmt;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// One consumed record, owned, undecoded. `Debug` shows where it lay and how long it is, never its content.
#[derive(Clone)]
pub struct Record {
    /// Full topic name (with prefix).
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset inside the partition.
    pub offset: i64,
    /// Broker or producer timestamp in milliseconds since the epoch, when it has one.
    pub timestamp_ms: Option<i64>,
    /// Key bytes, unchanged.
    pub key: Option<Bytes>,
    /// Headers in their order, values unchanged.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Value bytes, unchanged; `None` is a tombstone.
    pub payload: Option<Bytes>,
}

impl Record {
    /// What librdkafka lends, as its own.
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            headers: headers.unwrap_or_default(),
            payload: message.payload().map(Bytes::copy_from_slice),
        }
    }
}

impl Record {
    /// The value of the last header of this name, when it is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().rev().find(|(n, _)| n == name)?;
        std::str::from_utf8(&found.1).ok()
    }

    /// Bytes of key, headers and value together: what holding the record costs.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("headers", &self.headers.len())
            .field("payload_bytes", &self.payload.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}
