//! Members of the ledger's group on a real broker, and what is sent to them.

use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use waybill_messaging::consumer::{self, BatchHandler, ConsumerConfig, ConsumerStatus};
use waybill_messaging::envelope::Envelope;
use waybill_messaging::headers;
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{TestTopics, kafka_bootstrap};

use crate::ledger::{self, GROUP, TOPIC, notes};

/// Far beyond anything these tests wait for on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A consumer, running.
pub(crate) struct Member {
    shutdown: Shutdown,
    pub(crate) status: ConsumerStatus,
    task: JoinHandle<Result<(), consumer::ConsumerError>>,
}

impl Member {
    pub(crate) fn config(topics: &TestTopics) -> ConsumerConfig {
        let mut config = ConsumerConfig::new(&kafka_bootstrap(), &topics.prefix, GROUP, &[TOPIC]);
        config.batch_records_max = 20;
        config.retry_wait_first = Duration::from_millis(20);
        config.close_timeout = LIMIT;
        config
    }

    pub(crate) fn start(topics: &TestTopics, handler: impl BatchHandler) -> Self {
        Self::start_with(Self::config(topics), handler)
    }

    pub(crate) fn start_with(config: ConsumerConfig, handler: impl BatchHandler) -> Self {
        let (shutdown, status) = (Shutdown::manual(), config.status.clone());
        let task = tokio::spawn(consumer::run(config, handler, shutdown.clone()));
        Self { shutdown, status, task }
    }

    pub(crate) async fn assigned(&self, partitions: usize) {
        let has = async || (self.status.partitions() == Some(partitions)).then_some(());
        eventually_named("assignment", LIMIT, has).await;
    }

    /// Until its status tells of this failure.
    pub(crate) async fn failing(&self, with: &str) {
        let fails = async || self.status.check().err().filter(|why| why.contains(with));
        eventually_named(with, LIMIT, fails).await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) async fn send(topics: &TestTopics, envelope: &Envelope, payload: &[u8]) {
    let headers = headers::encode(envelope);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    topics.produce(TOPIC, Some(envelope.subject.as_bytes()), &headers, Some(payload)).await;
}

/// Numbered messages over seven keys, each sequence 1..n; every fifth message is published twice.
pub(crate) async fn send_many(topics: &TestTopics, from: i64, to: i64) {
    for number in from..to {
        let envelope = ledger::envelope(&format!("key-{}", number % 7), number / 7 + 1);
        send(topics, &envelope, b"note").await;
        if number % 5 == 0 {
            send(topics, &envelope, b"note").await;
        }
    }
}

pub(crate) async fn noted(pool: &PgPool, total: usize) {
    let enough = async || (notes(pool).await.len() >= total).then_some(());
    eventually_named("notes", LIMIT, enough).await;
}

/// Every message noted once, each key's in order.
pub(crate) async fn assert_once_and_in_order(pool: &PgPool, total: usize) {
    let all = notes(pool).await;
    assert_eq!(all.len(), total);
    for key in 0..7 {
        let key = format!("key-{key}");
        let sequences: Vec<i64> = all.iter().filter(|(k, _)| *k == key).map(|(_, n)| *n).collect();
        assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>(), "{key}");
    }
}
