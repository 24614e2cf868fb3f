//! Consumer and inbox together, on a real broker: effects once over crashes and rebalances, dead letters readable.

use waybill_messaging::consumer::{Batch, BatchError, BatchHandler};
use waybill_outbox::inbox::InboxProcessor;
use waybill_testkit::TestTopics;
use waybill_testkit::polling::eventually_named;

use crate::ledger::{self, Ledger, TOPIC, count};
use crate::members::{LIMIT, Member, assert_once_and_in_order, noted, send, send_many};

/// Does the work and then claims that it failed, as a process that dies between commit and offsets does.
struct DiesAfterCommit(InboxProcessor<Ledger>);

impl BatchHandler for DiesAfterCommit {
    async fn handle(&self, batch: &Batch) -> Result<(), BatchError> {
        self.0.handle(batch).await?;
        Err(BatchError::new("died before the offsets were stored, as planned"))
    }
}

#[tokio::test]
async fn a_crash_between_commit_and_offsets_repeats_no_effect() {
    let topics = TestTopics::create(&[(TOPIC, 3)]).await;
    let database = ledger::database("crash").await;
    send_many(&topics, 0, 70).await;
    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let member = Member::start(&topics, DiesAfterCommit(group));
    noted(&database.pool, 1).await;
    let failed = async || member.status.check().err().filter(|why| why.contains("as planned"));
    eventually_named("a batch committed without its offsets", LIMIT, failed).await;
    member.stop().await;

    let (group, _) = ledger::group(&database, &topics.prefix).await;
    let member = Member::start(&topics, group);
    noted(&database.pool, 70).await;
    member.stop().await;
    assert_once_and_in_order(&database.pool, 70).await;
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
    noted(&database.pool, 350).await;
    two.stop().await;
    assert_once_and_in_order(&database.pool, 350).await;
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
    noted(&database.pool, 140).await;
    assert_eq!(member.status.check(), Ok(()));
    member.stop().await;
    assert_once_and_in_order(&database.pool, 140).await;
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
    noted(&database.pool, 70).await;
    member.stop().await;
    assert_once_and_in_order(&database.pool, 70).await;
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
