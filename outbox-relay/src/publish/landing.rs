//! Which rows are acknowledged: counted by the producer's thread, read by the task that publishes.
//!
//! A row's tag (the slot of its piece and its place in it) travels through the producer as a number, so that nothing
//! is allocated per row. A failure is remembered once and ends the producer's life; nothing after it counts.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Bits of a word of the map of acknowledged rows.
const WORD_BITS: usize = u64::BITS as usize;
/// Bits of a tag that say the place inside a piece: a million rows, far above the largest piece allowed.
const PLACE_BITS: u32 = 20;
/// How long a broker's answer to a row is waited for after the producer's own end: they are told one after the other,
/// within microseconds.
const ANSWER_WAIT: Duration = Duration::from_millis(200);

/// A row on its way: the slot of its piece, its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The piece's slot.
    pub slot: usize,
    /// The row's place in the piece.
    pub place: usize,
}

impl Tag {
    pub(super) fn pack(self) -> usize {
        self.slot << PLACE_BITS | self.place
    }

    pub(super) fn unpack(packed: usize) -> Self {
        Self { slot: packed >> PLACE_BITS, place: packed & ((1 << PLACE_BITS) - 1) }
    }
}

/// How much a failure explains. A refused row ends the producer too, and that throws away the rows behind it: all of it
/// is told, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Thrown away with the producer.
    Purged,
    /// The producer's own end.
    Producer,
    /// The answer to a row.
    Refused,
}

/// The delivery that failed, or the producer's own end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The row, when it was one.
    pub tag: Option<Tag>,
    /// Its topic.
    pub topic: Option<String>,
    /// What librdkafka or the broker says.
    pub reason: String,
}

struct Slot {
    outstanding: AtomicU32,
    acknowledged: Box<[AtomicU64]>,
}

/// The record of one producer's life.
pub struct Landing {
    slots: Box<[Slot]>,
    failed: AtomicBool,
    /// Rows that brokers refused: all of a batch share its answer.
    refused: AtomicU32,
    /// Rows that were answered, one way or the other.
    answered: AtomicU64,
    failure: Mutex<Option<(Weight, Failure)>>,
    /// The brokers do not answer, says librdkafka; until one acknowledges again.
    brokers_down: AtomicBool,
    brokers_error: Mutex<String>,
    changed: Notify,
}

impl Landing {
    /// Room for so many pieces of so many rows. Until a broker has answered, none does.
    #[must_use]
    pub fn new(pieces_max: usize, rows_max: usize) -> Self {
        let slot = || Slot {
            outstanding: AtomicU32::new(0),
            acknowledged: (0..rows_max.div_ceil(WORD_BITS)).map(|_| AtomicU64::new(0)).collect(),
        };
        Self {
            slots: (0..pieces_max).map(|_| slot()).collect(),
            failed: AtomicBool::new(false),
            refused: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            failure: Mutex::new(None),
            brokers_down: AtomicBool::new(true),
            brokers_error: Mutex::new(String::new()),
            changed: Notify::new(),
        }
    }

    /// How many pieces it has room for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Begins a piece of so many rows; before the first of them is sent.
    pub fn begin(&self, slot: usize, rows: usize) {
        let slot = &self.slots[slot];
        for word in &slot.acknowledged {
            word.store(0, Ordering::Relaxed);
        }
        slot.outstanding.store(u32::try_from(rows).unwrap_or(u32::MAX), Ordering::Release);
    }

    /// Whether every row of the piece is acknowledged.
    #[must_use]
    pub fn landed(&self, slot: usize) -> bool {
        self.outstanding(slot) == 0
    }

    /// How many rows of the piece are not acknowledged, those not sent yet included.
    #[must_use]
    pub fn outstanding(&self, slot: usize) -> usize {
        self.slots[slot].outstanding.load(Ordering::Acquire) as usize
    }

    /// Whether this row is acknowledged.
    #[must_use]
    pub fn has_landed(&self, tag: Tag) -> bool {
        let word = self.slots[tag.slot].acknowledged[tag.place / WORD_BITS].load(Ordering::Acquire);
        word & (1 << (tag.place % WORD_BITS)) != 0
    }

    /// How many rows from the piece's beginning are acknowledged without a gap.
    #[must_use]
    pub fn landed_without_gap(&self, slot: usize) -> usize {
        let words = self.slots[slot].acknowledged.iter();
        let mut rows = 0;
        for word in words {
            let ones = word.load(Ordering::Acquire).trailing_ones() as usize;
            rows += ones;
            if ones < WORD_BITS {
                break;
            }
        }
        rows
    }

    /// A row is acknowledged.
    pub(super) fn acknowledged(&self, tag: Tag) {
        let slot = &self.slots[tag.slot];
        slot.acknowledged[tag.place / WORD_BITS].fetch_or(1 << (tag.place % WORD_BITS), Ordering::Release);
        self.answered.fetch_add(1, Ordering::Release);
        if slot.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.brokers_down.store(false, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// A delivery failed, or the producer did. The first of those that explain most is remembered.
    pub(super) fn fail(&self, weight: Weight, failure: Failure) {
        let rows = u64::from(failure.tag.is_some());
        let mut known = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|(known, _)| *known < weight) {
            *known = Some((weight, failure));
        }
        drop(known);
        if weight == Weight::Refused {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.answered.fetch_add(rows, Ordering::Release);
        self.failed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// How many rows brokers refused. A refused batch counts whole: which of its rows is the cause is not said.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed) as usize
    }

    /// How many rows were answered, as acknowledged or as failed.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Whether a delivery failed, or the producer did.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The failure that explains most, if any; a broker's answer to a row is waited for a moment.
    pub async fn failure(&self) -> Option<Failure> {
        if !self.failed() {
            return None;
        }
        let answer = async {
            while self.known().is_some_and(|(weight, _)| weight < Weight::Refused) {
                self.changed().await;
            }
        };
        let _none_came = tokio::time::timeout(ANSWER_WAIT, answer).await;
        self.known().map(|(_, failure)| failure)
    }

    fn known(&self) -> Option<(Weight, Failure)> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// librdkafka tells of a trouble that it mends by itself.
    pub(super) fn trouble(&self, reason: &str) {
        reason.clone_into(&mut self.brokers_error.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// librdkafka has no connection to any broker.
    pub(super) fn all_brokers_down(&self) {
        self.brokers_down.store(true, Ordering::Relaxed);
    }

    /// No broker answered a question: a connection may be open for long to one that hangs.
    pub fn brokers_are_silent(&self, reason: &str) {
        self.trouble(reason);
        self.all_brokers_down();
    }

    /// What librdkafka told last; empty when it never did.
    #[must_use]
    pub fn last_trouble(&self) -> String {
        self.brokers_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no broker answers, as far as is known.
    #[must_use]
    pub fn brokers_down(&self) -> bool {
        self.brokers_down.load(Ordering::Relaxed)
    }

    /// A broker answered.
    pub fn brokers_answer(&self) {
        self.brokers_down.store(false, Ordering::Relaxed);
    }

    /// Waits until a piece landed or something failed since the last wait; safe to be dropped at any time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_way() {
        for (slot, place) in [(0, 0), (63, 1_048_575), (7, 65)] {
            let tag = Tag { slot, place };
            assert_eq!(Tag::unpack(tag.pack()), tag);
        }
    }

    #[test]
    fn a_piece_lands_with_its_last_row_and_counts_without_gaps() {
        let landing = Landing::new(2, 130);
        landing.begin(1, 130);
        for place in (0..130).filter(|place| *place != 70) {
            landing.acknowledged(Tag { slot: 1, place });
        }
        assert!(!landing.landed(1));
        assert_eq!(landing.landed_without_gap(1), 70);
        landing.acknowledged(Tag { slot: 1, place: 70 });
        assert!(landing.landed(1));
        assert_eq!(landing.landed_without_gap(1), 130);
        landing.begin(1, 3);
        assert_eq!((landing.landed(1), landing.landed_without_gap(1)), (false, 0));
    }

    #[tokio::test]
    async fn a_brokers_answer_is_the_failure_whatever_is_told_before_it() {
        let landing = Landing::new(1, 1);
        assert_eq!(landing.failure().await, None);
        let told = |place, reason: &str| Failure {
            tag: Some(Tag { slot: 0, place }),
            topic: None,
            reason: reason.to_owned(),
        };
        landing.fail(Weight::Purged, told(2, "purged"));
        landing.fail(Weight::Producer, Failure { tag: None, ..told(0, "gap-less") });
        landing.fail(Weight::Refused, told(0, "too large"));
        landing.fail(Weight::Refused, told(1, "too large"));
        landing.fail(Weight::Producer, told(0, "again"));
        assert_eq!(landing.failure().await, Some(told(0, "too large")));
        assert_eq!(landing.refused(), 2);
    }

    #[tokio::test]
    async fn a_producers_end_without_a_row_is_told_after_a_moment() {
        let landing = Landing::new(1, 1);
        let end = Failure { tag: None, topic: None, reason: "out of order".to_owned() };
        landing.fail(Weight::Producer, end.clone());
        assert_eq!(landing.failure().await, Some(end));
    }
}
