//! Records that came before their time, per partition and in order.

use std::collections::{BTreeMap, VecDeque};

use super::settings::Due;
use crate::record::Record;

/// Topic and partition.
pub(super) type Place = (String, i32);

/// The records that are not due. A partition that waits is paused, so there are few: what was on its way already.
pub(super) struct Waiting {
    due: Option<Due>,
    partitions: BTreeMap<Place, VecDeque<Record>>,
}

impl Waiting {
    pub(super) fn new(due: Option<Due>) -> Self {
        Self { due, partitions: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    pub(super) fn waits(&self, place: &Place) -> bool {
        self.partitions.contains_key(place)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.partitions.keys()
    }

    /// The record again when it is due and nothing of its partition waits before it; else it is kept.
    pub(super) fn admit(&mut self, record: Record) -> Option<Record> {
        let Some(due) = &self.due else { return Some(record) };
        let place = (record.topic.clone(), record.partition);
        if self.waits(&place) || !due.is_due(&record) {
            self.partitions.entry(place).or_default().push_back(record);
            return None;
        }
        Some(record)
    }

    /// What is due now, in each partition's order, and the partitions of which nothing waits any more.
    pub(super) fn release(&mut self) -> (Vec<Record>, Vec<Place>) {
        let Some(due) = &self.due else { return (Vec::new(), Vec::new()) };
        let mut released = Vec::new();
        for records in self.partitions.values_mut() {
            let count = records.iter().take_while(|record| due.is_due(record)).count();
            released.extend(records.drain(..count));
        }
        let free = self
            .partitions
            .iter()
            .filter(|(_, records)| records.is_empty())
            .map(|(p, _)| p.clone())
            .collect();
        self.partitions.retain(|_, records| !records.is_empty());
        (released, free)
    }

    pub(super) fn forget(&mut self, revoked: &[Place]) {
        self.partitions.retain(|place, _| !revoked.contains(place));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn record(partition: i32, offset: i64, due_s: i64) -> Record {
        Record {
            topic: "t".to_owned(),
            partition,
            offset,
            timestamp_ms: Some(due_s * 1000),
            key: None,
            headers: Vec::new(),
            payload: None,
        }
    }

    #[test]
    fn a_partition_waits_in_order_and_others_do_not() {
        let clock = Arc::new(AtomicI64::new(1_000));
        let now_ms = Arc::clone(&clock);
        let due = Due::new(move |record| record.timestamp_ms <= Some(now_ms.load(Ordering::Relaxed)));
        let mut waiting = Waiting::new(Some(due));
        assert!(waiting.admit(record(0, 0, 5)).is_none());
        assert!(waiting.admit(record(0, 1, 0)).is_none(), "due, but another waits before it");
        assert!(waiting.admit(record(1, 0, 0)).is_some());
        assert!(waiting.admit(record(2, 0, 9)).is_none());
        clock.store(4_000, Ordering::Relaxed);
        assert!(waiting.release().0.is_empty());
        clock.store(5_000, Ordering::Relaxed);
        let (released, free) = waiting.release();
        assert_eq!(released.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(free, [("t".to_owned(), 0)]);
        assert!(waiting.waits(&("t".to_owned(), 2)));
        waiting.forget(&[("t".to_owned(), 2)]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn without_a_notion_of_due_nothing_waits() {
        let mut waiting = Waiting::new(None);
        assert!(waiting.admit(record(0, 0, 5)).is_some());
        assert!(waiting.release().0.is_empty());
    }
}
