//! A topic of its own, and how many records it has by its offsets.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use waybill_testkit::{TestTopics, kafka_bootstrap};

const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Topic {
    pub(crate) name: String,
    partitions: i32,
    consumer: BaseConsumer,
    /// Removes it at the end.
    _topics: TestTopics,
}

impl Topic {
    pub(crate) async fn create(name: &str, partitions: i32) -> Self {
        let topics = TestTopics::create(&[(name, partitions)]).await;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka_bootstrap()).set("group.id", "relay-bench");
        Self { name: topics.full(name), partitions, consumer: config.create().unwrap(), _topics: topics }
    }

    pub(crate) fn records(&self) -> i64 {
        let ends = (0..self.partitions).map(|partition| {
            let (low, high) =
                self.consumer.fetch_watermarks(&self.name, partition, QUESTION_TIMEOUT).unwrap();
            high - low
        });
        ends.sum()
    }
}
