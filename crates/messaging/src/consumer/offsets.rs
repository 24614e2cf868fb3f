//! Which offsets a handled batch lets us store.

use std::collections::BTreeMap;

use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::record::Record;

/// The next offset to read per partition: one past the batch's last record there.
pub(super) fn next_offsets(records: &[Record]) -> KafkaResult<TopicPartitionList> {
    let mut next = BTreeMap::new();
    for record in records {
        let offset = next.entry((record.topic.as_str(), record.partition)).or_insert(0);
        *offset = (record.offset + 1).max(*offset);
    }
    let mut list = TopicPartitionList::with_capacity(next.len());
    for ((topic, partition), offset) in next {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(topic: &str, partition: i32, offset: i64) -> Record {
        let (topic, headers) = (topic.to_owned(), Vec::new());
        Record { topic, partition, offset, timestamp_ms: None, key: None, headers, payload: None }
    }

    #[test]
    fn the_next_offset_is_one_past_the_last_of_each_partition() {
        let records = [record("a", 0, 4), record("b", 0, 9), record("a", 0, 5), record("a", 1, 0)];
        let list = next_offsets(&records).unwrap();
        let offset = |topic, partition| list.find_partition(topic, partition).map(|found| found.offset());
        assert_eq!(list.count(), 3);
        assert_eq!(offset("a", 0), Some(Offset::Offset(6)));
        assert_eq!(offset("a", 1), Some(Offset::Offset(1)));
        assert_eq!(offset("b", 0), Some(Offset::Offset(10)));
    }
}
