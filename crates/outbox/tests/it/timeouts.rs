//! Statements that take too long: because of one message, which is retried, or of a slow database, which all wait for.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_outbox::inbox::InboxProcessor;
use waybill_outbox::operate::{Filter, dead_letters};
use waybill_outbox::retry::{Poisoned, Policy};
use waybill_testkit::polling::eventually_named;

use crate::flaky::{self, Flaky, drained_until, sent};
use crate::ledger::{self, PREFIX, batch, count, notes};
use crate::letters::change;

const LIMIT: Duration = Duration::from_secs(120);

/// Key, state, attempts, error class, held messages.
type Parked = (String, String, i32, Option<String>, i64);

async fn parked(pool: &PgPool) -> Vec<Parked> {
    sqlx::query_as(
        "select convert_from(key, 'UTF8'), state, attempts, error_class, held_count from parked_keys order by key",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn retrying(key: &str, attempts: i32, held: i64) -> Parked {
    (key.to_owned(), "retrying".to_owned(), attempts, Some("statement_timeout".to_owned()), held)
}

#[tokio::test]
async fn one_that_times_out_among_others_is_retried_and_they_go_on() {
    let database = ledger::database("timeouts_one").await;
    let (group, _) = ledger::group_with(&database, PREFIX, Policy::default()).await;
    let mut noted = Vec::new();
    let mut waiting = Vec::new();
    // First, in the middle, last but for what lies behind it.
    for place in 0..4 {
        let key = |name| format!("{place}{name}");
        let others = ["a", "b", "c"].map(key);
        let slow = key("slow");
        let mut asks: Vec<(&str, &str)> = others.iter().map(|key| (key.as_str(), "note")).collect();
        asks.insert(place, (&slow, "times out"));
        asks.push((&slow, "note"));
        let batch = batch(&asks);
        for _ in 0..2 {
            group.handle(&batch).await.unwrap();
        }
        noted.extend(others.iter().cloned());
        waiting.push(retrying(&slow, 1, 1));
        let keys: Vec<String> = notes(&database.pool).await.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, noted, "slow at {place}");
        assert_eq!(parked(&database.pool).await, waiting, "slow at {place}");
    }
    assert_eq!(count(&database.pool, "dead_letters").await, 0);
}

#[tokio::test]
async fn what_is_at_fault_is_buried_beside_one_that_times_out() {
    let database = ledger::database("timeouts_fault").await;
    let (group, _) = ledger::group_with(&database, PREFIX, Policy::default()).await;
    let asks = [("a", "note"), ("b", "constraint"), ("c", "times out"), ("d", "reject"), ("e", "note")];
    group.handle(&batch(&asks)).await.unwrap();
    assert_eq!(notes(&database.pool).await, [("a".to_owned(), 1), ("e".to_owned(), 5)]);
    assert_eq!(count(&database.pool, "dead_letters").await, 2);
    assert!(parked(&database.pool).await.contains(&retrying("c", 1, 0)));
}

#[tokio::test]
async fn a_database_that_is_slow_for_everybody_decides_nothing() {
    let database = ledger::database("timeouts_all").await;
    let (group, ledger) = ledger::group_with(&database, PREFIX, Policy::default()).await;
    let keys: Vec<String> = (0..9).map(|number| format!("k{number}")).collect();
    let asks: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "times out")).collect();
    let batch = batch(&asks);
    for _ in 0..2 {
        let error = group.handle(&batch).await.unwrap_err();
        assert!(error.to_string().contains("no message gets through"), "{error}");
        // Together, and four alone: nobody waits for all of them to time out.
        let calls: Vec<usize> = ledger.calls.lock().unwrap().drain(..).map(|keys| keys.len()).collect();
        assert_eq!(calls, [9, 1, 1, 1, 1]);
    }
    for table in ["inbox", "outbox", "dead_letters"] {
        assert_eq!(count(&database.pool, table).await, 0, "{table}");
    }
    assert_eq!(parked(&database.pool).await, []);
}

#[tokio::test]
async fn one_that_times_out_lets_others_go_on_and_its_attempts_count_when_they_get_through() {
    let database = ledger::database("timeouts_lone").await;
    let pool = &database.pool;
    let policy = flaky::policy(Poisoned::Block);
    let group = Arc::new(Flaky::default().processor(pool, PREFIX, &policy));
    group.handle(&batch(&[("slow", "times out")])).await.unwrap();
    let mut rounds = 0;
    for _ in 0..2 * policy.attempts_max {
        assert_eq!(parked(pool).await, [retrying("slow", 0, 0)], "nobody knows whose fault it is");
        rounds += again(&group, pool, rounds).await;
    }
    group.handle(&batch(&[("other", "0"), ("slow", "0")])).await.unwrap();
    assert_eq!(notes(pool).await, [("other".to_owned(), 1)]);
    assert_eq!(parked(pool).await, [retrying("slow", 0, 1)]);

    let others = others_get_through(Arc::clone(&group));
    eventually_named("the end of its attempts", LIMIT, async || {
        rounds += again(&group, pool, rounds).await;
        (count(pool, "dead_letters").await > 0).then_some(())
    })
    .await;
    others.abort();
    let letter: (String, i32) =
        sqlx::query_as("select error_class, attempts from dead_letters").fetch_one(pool).await.unwrap();
    assert_eq!(letter, ("statement_timeout".to_owned(), i32::from(policy.attempts_max)));
}

#[tokio::test]
async fn a_held_one_that_times_out_becomes_the_head_when_others_get_through() {
    let database = ledger::database("timeouts_held").await;
    let pool = &database.pool;
    let group = Arc::new(Flaky::default().processor(pool, PREFIX, &flaky::policy(Poisoned::Block)));
    let asks = [("slow", "reject"), ("slow", "0"), ("slow", "times out"), ("slow", "0")];
    group.handle(&batch(&asks)).await.unwrap();
    dead_letters::discard(pool, &Filter::default(), 1, &change()).await.unwrap();
    let others = others_get_through(Arc::clone(&group));
    drained_until(&group, "a new head", async || {
        parked(pool).await.contains(&retrying("slow", 1, 1)).then_some(())
    })
    .await;
    others.abort();
    let before = notes(pool).await.into_iter().filter(|(key, _)| key == "slow").collect::<Vec<_>>();
    assert_eq!(before, [("slow".to_owned(), 2)], "the one before it, and none behind it");
    assert_eq!(count(pool, "dead_letters").await, 1);
}

/// Handles the heads that were sent after so many; returns how many.
async fn again(group: &InboxProcessor<Flaky>, pool: &PgPool, before: usize) -> usize {
    let heads = sent(pool, "").await.into_iter().filter(|record| record.topic.contains(".retry."));
    let records: Vec<_> = heads.skip(before).collect();
    let count = records.len();
    group.retries().handle(&Batch { records }).await.unwrap();
    count
}

/// Messages of other keys are handled, one after the other, until it is aborted.
fn others_get_through(group: Arc<InboxProcessor<Flaky>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            group.handle(&batch(&[("other", "0")])).await.unwrap();
        }
    })
}
