//! Members that join, leave and are thrown out under load: no effect doubled or lost, no partition left behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use waybill_messaging::config;
use waybill_messaging::consumer::ConsumerConfig;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{TestDatabase, TestTopics, kafka_bootstrap};

use crate::ledger::{self, GROUP, Ledger, TOPIC, count};
use crate::members::{LIMIT, Member, assert_once_and_in_order, noted, send, send_many};

/// The shortest time without a poll after which a group may drop its member.
const POLL_INTERVAL: Duration = Duration::from_secs(6);

async fn member(topics: &TestTopics, database: &TestDatabase) -> (Member, Ledger) {
    member_with(Member::config(topics), topics, database).await
}

async fn member_with(
    config: ConsumerConfig,
    topics: &TestTopics,
    database: &TestDatabase,
) -> (Member, Ledger) {
    let (group, ledger) = ledger::group(database, &topics.prefix).await;
    (Member::start_with(config, group), ledger)
}

/// Until one of its messages waits or hangs.
async fn waits(ledger: &Ledger) {
    let waits = async || ledger.waits.load(Ordering::SeqCst).then_some(());
    eventually_named("message that waits", LIMIT, waits).await;
}

/// Until the group waits for members to join it again.
async fn rebalancing(topics: &TestTopics) {
    let client: BaseConsumer = config::admin(&kafka_bootstrap(), "membership-test").create().unwrap();
    let group = format!("{}{GROUP}", topics.prefix);
    let state = move || {
        let groups = client.fetch_group_list(Some(&group), LIMIT).unwrap();
        groups.groups().first().is_some_and(|group| group.state() == "PreparingRebalance")
    };
    let state = std::sync::Arc::new(state);
    let is_preparing = async || {
        let state = std::sync::Arc::clone(&state);
        tokio::task::spawn_blocking(move || state()).await.unwrap().then_some(())
    };
    eventually_named("rebalance that waits for a busy member", LIMIT, is_preparing).await;
}

#[tokio::test]
async fn members_join_while_a_healthy_batch_is_in_a_long_handler() {
    let topics = TestTopics::create(&[(TOPIC, 6)]).await;
    let database = ledger::database("long_handler").await;
    let (one, first) = member(&topics, &database).await;
    one.assigned(6).await;
    send(&topics, &ledger::envelope("key-long", 1), b"wait").await;
    waits(&first).await;
    send_many(&topics, 0, 140).await;
    let (two, second) = member(&topics, &database).await;
    let (three, third) = member(&topics, &database).await;
    rebalancing(&topics).await;
    assert_eq!(count(&database.pool, "inbox").await, 0, "the batch is still in the handler");
    first.may_go_on.store(true, Ordering::SeqCst);
    for member in [&one, &two, &three] {
        member.assigned(2).await;
    }
    send_many(&topics, 140, 280).await;
    two.stop().await;
    send_many(&topics, 280, 350).await;
    one.assigned(3).await;
    three.assigned(3).await;
    noted(&database.pool, 351).await;
    assert_eq!((one.status.check(), three.status.check()), (Ok(()), Ok(())));
    one.stop().await;
    three.stop().await;
    assert_once_and_in_order(&database.pool, 351).await;
    assert_eq!(count(&database.pool, "outbox").await, 350, "each answered once");
    let given = [&first, &second, &third].map(Ledger::given);
    assert_eq!(
        given.iter().sum::<usize>(),
        351,
        "no handler was given a message that another had: {given:?}"
    );
}

/// A member stands still in the middle of this message for longer than its group waits, and goes on when another one has
/// its partitions.
async fn assert_a_zombie_does_no_harm(ask: &str, second_meets: Option<&str>) {
    let topics = TestTopics::create(&[(TOPIC, 4)]).await;
    let database = ledger::database("zombie").await;
    let mut short = Member::config(&topics);
    short.max_poll_interval = POLL_INTERVAL;
    short.batch_time_max = POLL_INTERVAL / 2;
    let (one, first) = member_with(short, &topics, &database).await;
    one.assigned(4).await;
    send_many(&topics, 0, 70).await;
    noted(&database.pool, 70).await;
    send(&topics, &ledger::envelope("key-zombie", 1), ask.as_bytes()).await;
    waits(&first).await;
    send_many(&topics, 70, 140).await;

    let (group, second) = ledger::group(&database, &topics.prefix).await;
    second.may_go_on.store(true, Ordering::SeqCst);
    let two = Member::start(&topics, group);
    two.assigned(4).await;
    match second_meets {
        // The zombie's transaction is open, and nobody else can take its messages.
        Some(why) => two.failing(why).await,
        None => noted(&database.pool, 140).await,
    }
    first.may_go_on.store(true, Ordering::SeqCst);
    one.assigned(2).await;
    two.assigned(2).await;
    send_many(&topics, 140, 210).await;
    // What hangs before its transaction leaves its note too, as every message does.
    noted(&database.pool, 211).await;
    let works = async || one.status.check().and_then(|()| two.status.check()).ok();
    eventually_named("status of members that work", LIMIT, works).await;
    one.stop().await;
    two.stop().await;
    assert_once_and_in_order(&database.pool, 211).await;
    assert_eq!(count(&database.pool, "outbox").await, 210, "each answered once");
    assert_eq!(count(&database.pool, "dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_zombie_that_hangs_before_its_transaction_does_no_harm() {
    assert_a_zombie_does_no_harm("hang early", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_zombie_that_hangs_in_its_transaction_does_no_harm() {
    assert_a_zombie_does_no_harm("hang", Some("lock timeout")).await;
}
