//! Real kills: the relay dies in the middle, or is stopped past its lease and goes on as a zombie.

use std::time::Duration;

use tokio::task::JoinSet;
use waybill_testkit::eventually;

use super::audit::audit;
use super::setup::{Outbox, SOON, TOPIC, metric};
use super::writers::write;

fn writers(outbox: &Outbox, connections: Vec<sqlx::PgConnection>, transactions: u64) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for (seed, connection) in connections.into_iter().enumerate() {
        writers.spawn(write(connection, outbox.topics.full(TOPIC), seed as u64 + 100, transactions));
    }
    writers
}

async fn connections(outbox: &Outbox, count: usize) -> Vec<sqlx::PgConnection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(outbox.connection().await);
    }
    connections
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_relay_loses_and_turns_nothing() {
    let outbox = Outbox::new("killed").await;
    let mut relay = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", "500").spawn();
    relay.wait_ready(SOON).await;
    let writers = writers(&outbox, connections(&outbox, 6).await, 500);
    for _ in 0..4 {
        // A process that was killed begins to count at nought.
        eventually(SOON, async || {
            (metric(&relay, "outbox_relay_published_rows_total").await > 20.0).then_some(())
        })
        .await;
        relay.kill9().await;
        relay.restart();
    }
    writers.join_all().await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    println!("killed four times: {audit:?}");
    relay.wait_ready(SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_only_repeats() {
    let outbox = Outbox::new("zombie").await;
    let mut first = outbox.relay().spawn();
    first.wait_ready(SOON).await;
    let mut second = outbox.relay().spawn();
    second.wait_ready(SOON).await;
    let writers = writers(&outbox, connections(&outbox, 4).await, 500);
    eventually(SOON, async || {
        (metric(&first, "outbox_relay_published_rows_total").await > 20.0).then_some(())
    })
    .await;
    first.sigstop().await;
    eventually(SOON, async || (metric(&second, "outbox_relay_lease_held").await > 0.0).then_some(())).await;
    eventually(SOON, async || {
        (metric(&second, "outbox_relay_published_rows_total").await > 20.0).then_some(())
    })
    .await;
    // Past the lease and more, under load: now it wakes up with rows in its hands.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.sigcont().await;
    eventually(SOON, async || (metric(&first, "outbox_relay_lease_held").await == 0.0).then_some(())).await;
    writers.join_all().await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    println!("a zombie: {audit:?}");
    assert_eq!(metric(&second, "outbox_relay_lease_held").await, 1.0, "the newer holder keeps the lease");
}
