//! A topic of its own: how many records it has by its offsets, and when the broker appended them.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use waybill_testkit::{TestTopics, kafka_bootstrap};

const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the records that must be there.
const READ_MAX: Duration = Duration::from_secs(120);
/// The header by which a record is known to be of a transaction.
pub(crate) const TRANSACTION_HEADER: &str = "transaction";

pub(crate) struct Topic {
    pub(crate) name: String,
    partitions: i32,
    consumer: BaseConsumer,
    /// Removes it at the end.
    _topics: TestTopics,
}

/// When a record was appended.
pub(crate) struct Appended {
    pub(crate) transaction: String,
    /// By the broker's clock, which is this machine's.
    pub(crate) appended_ms: i64,
}

impl Topic {
    pub(crate) async fn create(name: &str, partitions: i32) -> Self {
        let topics = TestTopics::create(&[(name, partitions)]).await;
        Self { name: topics.full(name), partitions, consumer: consumer(), _topics: topics }
    }

    /// Its records bear the time of their append instead of what their sender says.
    pub(crate) async fn stamped_by_broker(name: &str, partitions: i32) -> Self {
        let topics = TestTopics::new();
        topics.add_with(&[(name, partitions)], &[("message.timestamp.type", "LogAppendTime")]).await;
        Self { name: topics.full(name), partitions, consumer: consumer(), _topics: topics }
    }

    pub(crate) fn records(&self) -> i64 {
        self.ends().iter().sum()
    }

    /// The end of each partition.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let end =
            |partition| self.consumer.fetch_watermarks(&self.name, partition, QUESTION_TIMEOUT).unwrap().1;
        (0..self.partitions).map(end).collect()
    }

    /// The records from these offsets on; the run has no number when they are not just `count`.
    pub(crate) fn read_from(&self, offsets: &[i64], count: i64) -> Vec<Appended> {
        let started = Instant::now();
        while self.records() - offsets.iter().sum::<i64>() < count {
            assert!(started.elapsed() < READ_MAX, "{}: fewer than {count} records came", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut from = TopicPartitionList::new();
        for (partition, offset) in (0..self.partitions).zip(offsets) {
            from.add_partition_offset(&self.name, partition, Offset::Offset(*offset)).unwrap();
        }
        self.consumer.assign(&from).unwrap();
        let mut found = Vec::new();
        while (found.len() as i64) < count {
            assert!(started.elapsed() < READ_MAX, "{}: {count} records can not be read", self.name);
            let Some(record) = self.consumer.poll(Duration::from_secs(1)) else { continue };
            let record = record.unwrap();
            let headers = record.headers().unwrap();
            let header = headers.iter().find(|header| header.key == TRANSACTION_HEADER).unwrap();
            found.push(Appended {
                transaction: String::from_utf8(header.value.unwrap().to_vec()).unwrap(),
                appended_ms: record.timestamp().to_millis().unwrap(),
            });
        }
        let came = self.records() - offsets.iter().sum::<i64>();
        assert_eq!(came, count, "{}: {came} records came where {count} were to: no number", self.name);
        found
    }
}

fn consumer() -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka_bootstrap()).set("group.id", "relay-bench");
    config.create().unwrap()
}
