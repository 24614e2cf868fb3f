//! What fails stops its own key only, and never for ever what could go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::PgPool;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_outbox::operate::replays::{self, NewReplay};
use waybill_outbox::operate::{Filter, PageRequest, dead_letters};
use waybill_outbox::retry::{BrakePolicy, Poisoned, Policy};
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::polling::eventually_named;

use crate::flaky::{self, Flaky, Member, Relay, drained_until, sent};
use crate::ledger::{self, GROUP, PREFIX, TOPIC, batch, notes};
use crate::letters::change;

const LIMIT: Duration = Duration::from_secs(120);

/// Key, state, held messages.
async fn parked(pool: &PgPool) -> Vec<(String, String, i64)> {
    sqlx::query_as("select convert_from(key, 'UTF8'), state, held_count from parked_keys order by key")
        .fetch_all(pool)
        .await
        .unwrap()
}

fn row(key: &str, state: &str, held: i64) -> (String, String, i64) {
    (key.to_owned(), state.to_owned(), held)
}

#[tokio::test]
async fn a_held_message_that_the_infrastructure_fails_every_time_stops_its_own_key_only() {
    let database = ledger::database("progress_drain").await;
    let pool = &database.pool;
    let group = Flaky::default().processor(pool, PREFIX, &flaky::policy(Poisoned::Block));
    let keys: Vec<String> = (0..9).map(|number| format!("k{number}")).collect();
    let rejects = std::iter::once("a").chain(keys.iter().map(String::as_str)).map(|key| (key, "reject"));
    let held = std::iter::once(("a", "times out")).chain(keys.iter().map(|key| (key.as_str(), "0")));
    group.handle(&batch(&rejects.chain(held).collect::<Vec<_>>())).await.unwrap();
    // The one that fails has waited longest, and is looked at first.
    let of = |key: &str| Filter { key: Some(key.to_owned()), ..Filter::default() };
    dead_letters::discard(pool, &of("a"), 1, &change()).await.unwrap();
    dead_letters::discard(pool, &Filter::default(), 9, &change()).await.unwrap();
    let others = async || (parked(pool).await == [row("a", "draining", 1)]).then_some(());
    drained_until(&group, "every other key drained", others).await;
    assert_eq!(notes(pool).await.len(), 9);

    let mended = Flaky::mended().processor(pool, PREFIX, &flaky::policy(Poisoned::Block));
    drained_until(&mended, "no parked key", async || parked(pool).await.is_empty().then_some(())).await;
    assert_eq!(notes(pool).await.len(), 10);
}

#[tokio::test]
async fn a_replay_that_fails_every_time_does_not_stop_the_next() {
    let database = ledger::database("progress_replays").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Flaky::mended().processor(pool, PREFIX, &policy);
    Flaky::default()
        .processor(pool, PREFIX, &policy)
        .handle(&batch(&[("a", "reject"), ("b", "reject")]))
        .await
        .unwrap();
    let of = |key: &str| NewReplay::of(Filter { key: Some(key.to_owned()), ..Filter::default() });
    let first = replays::create(pool, &of("a"), &change()).await.unwrap();
    let second = replays::create(pool, &of("b"), &change()).await.unwrap();
    // Nobody can read this one's headers.
    sqlx::query(r#"update dead_letters set headers = '[{"name": "x"}]' where key = 'a'"#)
        .execute(pool)
        .await
        .unwrap();
    let shutdown = Shutdown::manual();
    let driver = tokio::spawn(replays::run(pool.clone(), PREFIX.to_owned(), policy, shutdown.clone()));
    eventually_named("the head of the second", LIMIT, async || {
        let head = sent(pool, ".retry.1").await.pop()?;
        group.retries().handle(&Batch { records: vec![head] }).await.unwrap();
        Some(())
    })
    .await;
    eventually_named("the end of the second", LIMIT, async || {
        (replays::show(pool, second.id).await.unwrap().state == "finished").then_some(())
    })
    .await;
    assert_eq!(replays::show(pool, first.id).await.unwrap().state, "running");
    shutdown.request();
    driver.await.unwrap();
}

#[tokio::test]
async fn heads_on_tiers_that_the_policy_no_longer_has_are_read() {
    let three = flaky::policy(Poisoned::Block);
    let topics = Arc::new(flaky::topics(1, &three).await);
    let database = ledger::database("progress_tiers").await;
    let pool = &database.pool;
    let group = Flaky::default().processor(pool, &topics.prefix, &three);
    let mut first = batch(&[("a", "9"), ("a", "0")]);
    for record in &mut first.records {
        record.topic = topics.full(TOPIC);
    }
    group.handle(&first).await.unwrap();
    for tier in [".retry.1", ".retry.2"] {
        let records = sent(pool, tier).await;
        group.retries().handle(&Batch { records }).await.unwrap();
    }
    assert_eq!(sent(pool, ".retry.3").await.len(), 1);
    let _relay = Relay::start(&database, Arc::clone(&topics));
    let declared = three.topics(TOPIC, GROUP);
    let one = Policy { declared, ..Policy::with_delays(&[Duration::from_millis(50)]) };
    let member = Member::start(&database, &topics, &Flaky::mended(), &one);
    let done = async || (notes(pool).await.len() == 2 && parked(pool).await.is_empty()).then_some(());
    eventually_named("the head of the third tier and what it held up", LIMIT, done).await;
    member.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_more_than_may_be_held_is_held_when_nothing_else_is() {
    let database = ledger::database("progress_bound").await;
    let pool = &database.pool;
    let policy = Policy { held_bytes_max: 600, ..flaky::policy(Poisoned::Block) };
    let group = Flaky::default().processor(pool, PREFIX, &policy);
    let asks: Vec<_> = std::iter::once(("a", "reject")).chain(std::iter::repeat_n(("a", "0"), 10)).collect();
    group.handle(&batch(&asks)).await.unwrap();
    assert_eq!(parked(pool).await, [row("a", "blocked", 10)], "an operator has something to mend");
    let bytes: i64 = sqlx::query_scalar("select held_bytes from parked_keys").fetch_one(pool).await.unwrap();
    assert!(bytes > 600, "{bytes}");
    let next = batch(&[("a", "0"), ("b", "0")]);
    let error = group.handle(&next).await.unwrap_err();
    assert!(error.to_string().contains("at most 600 are held"), "{error}");
    assert_eq!(notes(pool).await, []);
    dead_letters::discard(pool, &Filter::default(), 1, &change()).await.unwrap();
    drained_until(&group, "no parked key", async || parked(pool).await.is_empty().then_some(())).await;
    group.handle(&next).await.unwrap();
    assert_eq!(notes(pool).await.len(), 12);
}

#[tokio::test]
async fn keys_that_got_through_by_a_retry_do_not_count_as_failing() {
    let database = ledger::database("progress_brake").await;
    let pool = &database.pool;
    let brake = BrakePolicy { keys: 10, failing_percent: 80 };
    let policy = Policy { brake, ..flaky::policy(Poisoned::Block) };
    let flaky = Flaky::default();
    let group = flaky.processor(pool, PREFIX, &policy);
    flaky.is_down.store(true, Ordering::SeqCst);
    let keys: Vec<String> = (0..7).map(|number| format!("k{number}")).collect();
    let outage: Vec<_> = keys.iter().map(|key| (key.as_str(), "while down")).collect();
    group.handle(&batch(&[&[("x", "0"), ("y", "0")][..], &outage].concat())).await.unwrap();
    flaky.is_down.store(false, Ordering::SeqCst);
    let records = sent(pool, ".retry.1").await;
    assert_eq!(records.len(), 7);
    group.retries().handle(&Batch { records }).await.unwrap();

    // With those seven it would be eight of the last ten.
    group.handle(&batch(&[("bad", "9")])).await.unwrap();
    let is_parked = parked(pool).await.contains(&row("bad", "retrying", 0));
    assert!(is_parked, "{:?}", parked(pool).await);
    drained_until(&group, "the others unparked", async || (parked(pool).await.len() == 1).then_some(()))
        .await;
    let open = dead_letters::list(pool, &Filter::default(), &PageRequest::default()).await.unwrap().items;
    assert_eq!(open, []);
}
