//! Consumer and inbox together, on a real broker: effects once over crashes and rebalances, dead letters readable.

use std::time::Duration;

use tokio::task::JoinHandle;
use waybill_messaging::consumer::{self, Batch, BatchError, BatchHandler, ConsumerConfig, ConsumerStatus};
use waybill_messaging::envelope::Envelope;
use waybill_messaging::headers;
use waybill_outbox::inbox::InboxProcessor;
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{TestDatabase, TestTopics, kafka_bootstrap};

use crate::ledger::{self, GROUP, Ledger, TOPIC, count, notes};

const LIMIT: Duration = Duration::from_secs(120);

/// Does the work and then claims that it failed, as a process that dies between commit and offsets does.
struct DiesAfterCommit(InboxProcessor<Ledger>);

impl BatchHandler for DiesAfterCommit {
    async fn handle(&self, batch: &Batch) -> Result<(), BatchError> {
        self.0.handle(batch).await?;
        Err(BatchError::new("died before the offsets were stored, as planned"))
    }
}

struct Member {
    shutdown: Shutdown,
    status: ConsumerStatus,
    task: JoinHandle<Result<(), consumer::ConsumerError>>,
}

impl Member {
    fn start(topics: &TestTopics, handler: impl BatchHandler) -> Self {
        let mut config = ConsumerConfig::new(&kafka_bootstrap(), &topics.prefix, GROUP, &[TOPIC]);
        config.batch_records_max = 20;
        config.retry_wait_first = Duration::from_millis(20);
        config.close_timeout = LIMIT;
        let (shutdown, status) = (Shutdown::manual(), config.status.clone());
        let task = tokio::spawn(consumer::run(config, handler, shutdown.clone()));
        Self { shutdown, status, task }
    }

    async fn stop(self) {
        self.shutdown.request();
        self.task.await.unwrap().unwrap();
    }
}

async fn send(topics: &TestTopics, envelope: &Envelope, payload: &[u8]) {
    let headers = headers::encode(envelope);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    topics.produce(TOPIC, Some(envelope.subject.as_bytes()), &headers, Some(payload)).await;
}

/// Numbered messages over seven keys, each sequence 1..n; every fifth message is published twice.
async fn send_many(topics: &TestTopics, from: i64, to: i64) {
    for number in from..to {
        let envelope = ledger::envelope(&format!("key-{}", number % 7), number / 7 + 1);
        send(topics, &envelope, b"note").await;
        if number % 5 == 0 {
            send(topics, &envelope, b"note").await;
        }
    }
}

async fn noted(database: &TestDatabase, total: usize) {
    let enough = async || (notes(&database.pool).await.len() >= total).then_some(());
    eventually_named("notes", LIMIT, enough).await;
}

/// Every message noted once, each key's in order.
async fn assert_once_and_in_order(database: &TestDatabase, total: usize) {
    let all = notes(&database.pool).await;
    assert_eq!(all.len(), total);
    for key in 0..7 {
        let key = format!("key-{key}");
        let sequences: Vec<i64> = all.iter().filter(|(k, _)| *k == key).map(|(_, n)| *n).collect();
        assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test]
async fn a_crash_between_commit_and_offsets_repeats_no_effect() {
    let topics = TestTopics::create(&[(TOPIC, 3)]).await;
    let database = ledger::database("crash").await;
    send_many(&topics, 0, 70).await;
    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let member = Member::start(&topics, DiesAfterCommit(group));
    noted(&database, 1).await;
    let failed = async || member.status.check().err().filter(|why| why.contains("as planned"));
    eventually_named("a batch committed without its offsets", LIMIT, failed).await;
    member.stop().await;

    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let member = Member::start(&topics, group);
    noted(&database, 70).await;
    member.stop().await;
    assert_once_and_in_order(&database, 70).await;
    assert_eq!(count(&database.pool, "outbox").await, 70, "each answered once");
}

#[tokio::test]
async fn members_that_come_and_go_make_every_effect_once_and_in_order() {
    let topics = TestTopics::create(&[(TOPIC, 6)]).await;
    let database = ledger::database("rebalance").await;
    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let one = Member::start(&topics, group);
    send_many(&topics, 0, 70).await;
    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let two = Member::start(&topics, group);
    send_many(&topics, 70, 210).await;
    let shared = async || (two.status.partitions() == Some(3)).then_some(());
    eventually_named("a second member with its share", LIMIT, shared).await;
    send_many(&topics, 210, 280).await;
    one.stop().await;
    send_many(&topics, 280, 350).await;
    noted(&database, 350).await;
    two.stop().await;
    assert_once_and_in_order(&database, 350).await;
}

#[tokio::test]
async fn a_database_that_is_locked_away_delays_and_nothing_else() {
    let topics = TestTopics::create(&[(TOPIC, 3)]).await;
    let database = ledger::database("delayed").await;
    send_many(&topics, 0, 35).await;
    let mut other = database.pool.begin().await.unwrap();
    sqlx::query("lock table notes").execute(&mut *other).await.unwrap();
    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let member = Member::start(&topics, group);
    let waiting = async || member.status.check().err().filter(|why| why.contains("lock timeout"));
    eventually_named("a status that tells of the lock", LIMIT, waiting).await;
    send_many(&topics, 35, 140).await;
    other.rollback().await.unwrap();
    noted(&database, 140).await;
    assert_eq!(member.status.check(), Ok(()));
    member.stop().await;
    assert_once_and_in_order(&database, 140).await;
    assert_eq!(count(&database.pool, "dead_letters").await, 0);
}

#[tokio::test]
async fn one_bad_record_stops_nobody() {
    let topics = TestTopics::create(&[(TOPIC, 1)]).await;
    let database = ledger::database("bad_record").await;
    send_many(&topics, 0, 7).await;
    let (partition, offset) = topics.produce(TOPIC, None, &[("x", &[0xff])], Some(&[0, 0, 0])).await;
    send(&topics, &ledger::envelope("key-rejected", 1), b"reject").await;
    send_many(&topics, 7, 70).await;
    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let member = Member::start(&topics, group);
    noted(&database, 70).await;
    member.stop().await;
    assert_once_and_in_order(&database, 70).await;
    let letters: Vec<(String, i32, i64, Vec<u8>)> = sqlx::query_as(
        "select error_class, partition, \"offset\", payload from dead_letters order by \"offset\"",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(letters[0], ("headers".to_owned(), partition, offset, vec![0, 0, 0]));
    assert_eq!(letters[1].0, "not_wanted");
    assert_eq!(letters.len(), 2);
}
