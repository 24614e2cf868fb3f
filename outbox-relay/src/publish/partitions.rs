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
/// After so long it is asked whether there are more of them: librdkafka's own `topic.metadata.refresh.interval.ms`.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// The partitions of one topic, in one producer's life.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// When a record was last sent to each.
    sent: Vec<Option<Instant>>,
    /// When it was last heard how many there are.
    learned: Option<Instant>,
}

impl Partitions {
    /// There are so many now, at least one; those that were added are not used yet.
    pub(super) fn learn(&mut self, count: usize, now: Instant) {
        self.sent.resize(count.max(1), None);
        self.learned = Some(now);
    }

    /// Whether it was heard lately how many there are.
    pub(super) fn are_fresh(&self, now: Instant) -> bool {
        self.learned.is_some_and(|learned| now.duration_since(learned) <= FRESH)
    }

    /// Where a key goes.
    pub(super) fn of(&self, key: &[u8]) -> i32 {
        partition_of(key, i32::try_from(self.sent.len()).unwrap_or(i32::MAX))
    }

    /// A record is sent there. Returns whether the broker may know nothing of this producer there yet.
    pub(super) fn send(&mut self, partition: i32, now: Instant) -> bool {
        let sent = usize::try_from(partition).ok().and_then(|place| self.sent.get_mut(place));
        let before = sent.and_then(|sent| sent.replace(now));
        before.is_none_or(|before| now.duration_since(before) > REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_new_until_a_record_was_sent_and_again_after_a_long_silence() {
        let (mut partitions, now) = (Partitions::default(), Instant::now());
        partitions.learn(6, now);
        let partition = partitions.of(b"foobar");
        assert!(partitions.send(partition, now));
        assert!(!partitions.send(partition, now + REMEMBERED));
        assert!(partitions.send(partition, now + 2 * REMEMBERED + Duration::from_millis(1)));
        assert!(partitions.send((partition + 1) % 6, now), "each for itself");
    }

    #[test]
    fn partitions_that_are_added_are_asked_for_after_a_while_and_new() {
        let (mut partitions, now) = (Partitions::default(), Instant::now());
        assert!(!partitions.are_fresh(now), "nothing is known of them yet");
        partitions.learn(1, now);
        assert!(partitions.send(0, now));
        let later = now + FRESH + Duration::from_millis(1);
        assert!(partitions.are_fresh(now + FRESH) && !partitions.are_fresh(later));
        partitions.learn(2, later);
        assert!(partitions.are_fresh(later));
        assert!(!partitions.send(0, later), "the one that was there was sent to lately");
        assert!(partitions.send(1, later), "the one that was added was not");
    }
}
