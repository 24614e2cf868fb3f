//! A topic's partitions: which one a key goes to, and which have taken a record of this producer lately.
//!
//! A broker that knows nothing of a producer on a partition takes whatever record comes first, whatever its number
//! (`ProducerAppendInfo.checkSequence` in Kafka 4.3). So when the very first record of a partition is refused, and its
//! successor was sent before the refusal was known, the successor is appended: it passes the refused one. From the first
//! acknowledged record on the broker refuses every gap. Hence the first record of a partition travels alone.

use std::time::{Duration, Instant};

use waybill_messaging::partitioner::partition_of;

/// Brokers forget a producer that has written nothing to a partition for `producer.id.expiration.ms`: a day, unless it was
/// set otherwise. Waiting for one acknowledgement after so long a silence costs nothing.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// The partitions of one topic, in one producer's life.
#[derive(Debug)]
pub(super) struct Partitions {
    /// When a record was last sent to each.
    sent: Box<[Option<Instant>]>,
}

impl Partitions {
    /// So many, at least one, none of them used yet.
    pub(super) fn new(count: usize) -> Self {
        Self { sent: vec![None; count.max(1)].into_boxed_slice() }
    }

    /// Where a key goes.
    pub(super) fn of(&self, key: &[u8]) -> usize {
        let count = i32::try_from(self.sent.len()).unwrap_or(i32::MAX);
        usize::try_from(partition_of(key, count)).unwrap_or_default()
    }

    /// A record is sent there. Returns whether the broker may know nothing of this producer there yet.
    pub(super) fn send(&mut self, partition: usize, now: Instant) -> bool {
        let before = self.sent[partition].replace(now);
        before.is_none_or(|before| now.duration_since(before) > REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_new_until_a_record_was_sent_and_again_after_a_long_silence() {
        let (mut partitions, now) = (Partitions::new(6), Instant::now());
        let partition = partitions.of(b"foobar");
        assert!(partitions.send(partition, now));
        assert!(!partitions.send(partition, now + REMEMBERED));
        assert!(partitions.send(partition, now + 2 * REMEMBERED + Duration::from_millis(1)));
        assert!(partitions.send((partition + 1) % 6, now), "each for itself");
    }
}
