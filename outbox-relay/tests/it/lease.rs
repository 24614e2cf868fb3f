//! The lease between two relays: one waits, a clean end hands over at once, a kill after the lease.

use std::time::Duration;

use waybill_testkit::{Process, eventually};

use super::audit::audit;
use super::setup::{LEASE_SOON_OVER, Outbox, SOON, TOPIC, append, ask, metric};

#[tokio::test]
async fn a_clean_end_hands_over_before_the_lease_runs_out() {
    let outbox = Outbox::new("handover").await;
    // A lease far longer than the test: whoever takes over was handed it.
    let long = || outbox.relay().env("OUTBOX_RELAY_LEASE_MS", "600000");
    let mut first = long().spawn();
    first.wait_ready(SOON).await;
    let mut second = long().spawn();
    second.wait_output("another relay publishes", SOON).await;
    assert_eq!(ask(&second, "/ready").await.0, 200, "one that waits is ready to take over");
    assert_eq!(metric(&second, "outbox_relay_lease_held").await, 0.0);
    outbox.bulk(100).await;
    eventually(SOON, async || {
        (metric(&first, "outbox_relay_published_rows_total").await == 100.0).then_some(())
    })
    .await;
    assert_eq!(first.terminate().await, Some(0));
    eventually(SOON, async || (metric(&second, "outbox_relay_lease_held").await == 1.0).then_some(())).await;
    outbox.bulk(50).await;
    eventually(SOON, async || {
        (metric(&second, "outbox_relay_published_rows_total").await >= 50.0).then_some(())
    })
    .await;
    assert_eq!(
        metric(&second, "outbox_relay_published_rows_total").await,
        50.0,
        "the position came with the lease"
    );
    assert_eq!(outbox.relay_row::<i64>("epoch").await, 2);
    assert_eq!(second.terminate().await, Some(0));
    assert_eq!(outbox.relay_row::<Option<String>>("owner").await, None, "the lease is free");
}

#[tokio::test]
async fn a_killed_holder_is_followed_when_its_lease_runs_out() {
    let outbox = Outbox::new("takeover").await;
    let relay = || outbox.relay().env("OUTBOX_RELAY_LEASE_MS", LEASE_SOON_OVER);
    let mut first = relay().spawn();
    first.wait_ready(SOON).await;
    let mut second = relay().spawn();
    second.wait_ready(SOON).await;
    first.kill9().await;
    eventually(SOON, async || (metric(&second, "outbox_relay_lease_held").await == 1.0).then_some(())).await;
    outbox.bulk(10).await;
    eventually(SOON, async || {
        (metric(&second, "outbox_relay_published_rows_total").await >= 10.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_relays_over_two_databases_each_is_published_by_one_and_then_by_the_one_that_is_left() {
    let (left, right) = (Outbox::new("pair_left").await, Outbox::new("pair_right").await);
    let databases = format!("left={},right={}", left.database.url, right.database.url);
    let relay = || {
        let relay = left.relay().env("OUTBOX_RELAY_DATABASES", databases.clone());
        relay.env("OUTBOX_RELAY_LEASE_MS", LEASE_SOON_OVER)
    };
    let (mut first, mut second) = (relay().spawn(), relay().spawn());
    first.wait_ready(SOON).await;
    second.wait_ready(SOON).await;
    let held = async |relay: &Process, name: &str| {
        metric(relay, &format!("outbox_relay_lease_held{{database=\"{name}\"}}")).await
    };
    for name in ["left", "right"] {
        eventually(SOON, async || {
            (held(&first, name).await + held(&second, name).await == 1.0).then_some(())
        })
        .await;
    }
    let (mut in_left, mut in_right) = (left.connection().await, right.connection().await);
    append(&mut in_left, &left.topics.full(TOPIC), 1).await;
    append(&mut in_right, &right.topics.full(TOPIC), 1).await;
    audit(&left.topics, TOPIC, &left.database.pool).await;
    audit(&right.topics, TOPIC, &right.database.pool).await;
    first.kill9().await;
    for name in ["left", "right"] {
        eventually(SOON, async || (held(&second, name).await == 1.0).then_some(())).await;
    }
    append(&mut in_left, &left.topics.full(TOPIC), 1).await;
    append(&mut in_right, &right.topics.full(TOPIC), 1).await;
    audit(&left.topics, TOPIC, &left.database.pool).await;
    audit(&right.topics, TOPIC, &right.database.pool).await;
    assert_eq!(second.terminate().await, Some(0));
}

#[tokio::test]
async fn an_idle_relay_asks_seldom_and_writes_nothing_but_its_lease() {
    // Sessions tell the server's statistics what they did once a second while they work, up to ten seconds later when they
    // do not, and at their end: those that made the tables end here, and the relay's start is told before the first look.
    const TOLD_AFTER: Duration = Duration::from_secs(3);
    // Long enough that a second told late changes the rate by a tenth only.
    const WINDOW: Duration = Duration::from_secs(10);
    let outbox = Outbox::new("idle").await;
    outbox.database.pool.close().await;
    let mut connection = outbox.connection().await;
    let mut relay = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", "20000").spawn();
    relay.wait_ready(SOON).await;
    tokio::time::sleep(TOLD_AFTER).await;
    let transactions = "select xact_commit from pg_stat_database where datname = current_database()";
    let before: i64 = sqlx::query_scalar(transactions).fetch_one(&mut connection).await.unwrap();
    let started = std::time::Instant::now();
    tokio::time::sleep(WINDOW).await;
    let after: i64 = sqlx::query_scalar(transactions).fetch_one(&mut connection).await.unwrap();
    let rate = (after - before) as f64 / started.elapsed().as_secs_f64();
    println!("idle: {rate:.1} transactions/s");
    assert!(rate <= 50.0, "{rate} idle transactions a second");
    assert!(rate >= 1.0, "{rate} transactions a second: nobody looked for rows, or nobody counted");
    let position = "select position_to::text from outbox_relay where name = 'default'";
    let position: Option<String> = sqlx::query_scalar(position).fetch_one(&mut connection).await.unwrap();
    assert_eq!(position, None);
}
