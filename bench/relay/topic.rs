//! A topic of its own: how many records it has by its offsets, which they are, and when the broker appended them.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use waybill_testkit::{TestTopics, kafka_bootstrap};

const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the records that must be there, millions of them after a drain.
const READ_MAX: Duration = Duration::from_secs(600);
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
    pub(crate) key: String,
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
        let mut found = Vec::new();
        self.read_each(offsets, count, |record| {
            found.push(Appended {
                transaction: header(record, TRANSACTION_HEADER),
                key: String::from_utf8(record.key().unwrap_or_default().to_vec()).unwrap(),
                appended_ms: record.timestamp().to_millis().unwrap(),
            });
        });
        found
    }

    /// [`Topic::read_from`], each looked at as it comes and not kept.
    pub(crate) fn read_each(&self, offsets: &[i64], count: i64, mut each: impl FnMut(&BorrowedMessage<'_>)) {
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
        let mut found = 0;
        while found < count {
            assert!(started.elapsed() < READ_MAX, "{}: {count} records can not be read", self.name);
            let Some(record) = self.consumer.poll(Duration::from_secs(1)) else { continue };
            each(&record.unwrap());
            found += 1;
        }
        let came = self.records() - offsets.iter().sum::<i64>();
        assert_eq!(came, count, "{}: {came} records came where {count} were to: no number", self.name);
    }
}

/// The text of a header that is there.
pub(crate) fn header(record: &BorrowedMessage<'_>, name: &str) -> String {
    let found = record.headers().and_then(|headers| headers.iter().find(|header| header.key == name));
    let value =
        found.and_then(|header| header.value).unwrap_or_else(|| panic!("no record is without {name}"));
    String::from_utf8(value.to_vec()).unwrap()
}

fn consumer() -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka_bootstrap()).set("group.id", "relay-bench");
    config.create().unwrap()
}
