//! The newest of many records, held in as little memory as they alone take.

use std::collections::BTreeMap;

use waybill_messaging::record::Record;

/// Time, topic, partition, offset: the order in which records are shown.
type Place = (Option<i64>, String, i32, i64);

/// At most so many records; an older one makes room for a newer one.
pub(super) struct Newest {
    records_max: usize,
    records: BTreeMap<Place, Record>,
}

impl Newest {
    pub(super) fn new(records_max: usize) -> Self {
        Self { records_max, records: BTreeMap::new() }
    }

    pub(super) fn take(&mut self, record: Record) {
        let place = (record.timestamp_ms, record.topic.clone(), record.partition, record.offset);
        self.records.insert(place, record);
        if self.records.len() > self.records_max {
            self.records.pop_first();
        }
    }

    /// Oldest first.
    pub(super) fn records(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_held() {
        let mut newest = Newest::new(3);
        for (place, ms) in [50, 10, 40, 40, 30, 20].into_iter().enumerate() {
            newest.take(Record {
                topic: "t".to_owned(),
                partition: 0,
                offset: place as i64,
                timestamp_ms: Some(ms),
                key: None,
                headers: Vec::new(),
                payload: None,
            });
            assert!(newest.records.len() <= 3, "what is not shown is let go at once");
        }
        let held: Vec<i64> = newest.records().map(|record| record.offset).collect();
        assert_eq!(held, [2, 3, 0], "by time, then by offset");
    }
}
