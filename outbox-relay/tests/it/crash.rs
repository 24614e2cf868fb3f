//! Real kills: the relay dies at every point of its way, or is stopped past its lease and goes on as a zombie.

use std::time::Instant;

use sqlx::Connection as _;
use waybill_testkit::eventually;

use super::audit::{audit, audit_to_end};
use super::setup::{LEASE_SHORT, LEASE_SOON_OVER, Outbox, SOON, TOPIC, append, metric};
use super::steady::Steady;
use super::torture::writers;

/// Rows of a crash.
const ROWS: usize = 20;

/// Where it dies (`WAYBILL_FAILPOINT`), in pieces of how many rows, and how many of the rows are then published again.
const POINTS: [(&str, &str, std::ops::RangeInclusive<usize>); 8] = [
    ("after_snapshot", "2000", 0..=0),
    ("inside_reading:1", "5", 0..=0),
    ("inside_reading:3", "5", 0..=10),
    ("after_produce", "2000", 0..=ROWS),
    ("acknowledged:7", "2000", 7..=ROWS),
    // The last one: every row is there, nothing says so.
    ("acknowledged:20", "2000", ROWS..=ROWS),
    ("before_position", "2000", ROWS..=ROWS),
    ("after_position", "2000", 0..=0),
];

/// Twenty rows over five aggregates in one transaction.
async fn twenty(outbox: &Outbox) {
    let (mut connection, topic) = (outbox.connection().await, outbox.topics.full(TOPIC));
    let mut transaction = connection.begin().await.unwrap();
    for row in 0..ROWS {
        append(&mut transaction, &topic, i32::try_from(row % 5).unwrap() + 1).await;
    }
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_costs_repeats_only() {
    let outbox = Outbox::new("points").await;
    let mut before = 0;
    for (point, piece_rows, expected) in POINTS {
        twenty(&outbox).await;
        let armed = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", LEASE_SOON_OVER);
        let mut armed =
            armed.env("WAYBILL_FAILPOINT", point).env("OUTBOX_RELAY_PIECE_ROWS_MAX", piece_rows).spawn();
        let ended = armed.wait_exit(SOON).await;
        assert_eq!(ended, None, "{point}: a signal ends it:\n{}", armed.output());
        // A row behind the others: when it is there, so are they and their repeats.
        append(&mut outbox.connection().await, &outbox.topics.full(TOPIC), 9).await;
        let mut healthy = outbox.relay().spawn();
        audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
        assert_eq!(healthy.terminate().await, Some(0));
        let audit = audit_to_end(&outbox.topics, TOPIC, &outbox.database.pool).await;
        let repeats = audit.repeats - before;
        before = audit.repeats;
        println!("{point}: {repeats} of {ROWS} rows published again");
        assert!(expected.contains(&repeats), "{point}: {repeats} repeats, expected {expected:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_under_load_loses_and_turns_nothing() {
    let outbox = Outbox::new("killed").await;
    let mut relay = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", LEASE_SHORT).spawn();
    relay.wait_ready(SOON).await;
    let writers = writers(&outbox, 100, 6, 300).await;
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
    // Until it is stopped the first one must keep it.
    let lease = std::time::Duration::from_millis(3_000);
    let outbox = Outbox::new("zombie").await;
    let relay = || outbox.relay().env("OUTBOX_RELAY_LEASE_MS", lease.as_millis().to_string());
    // Its rows linger: there are some in its hands when it is stopped.
    let mut first = relay().env("OUTBOX_RELAY_LINGER_MS", "500").spawn();
    first.wait_ready(SOON).await;
    let mut second = relay().spawn();
    second.wait_ready(SOON).await;
    let writers = writers(&outbox, 200, 4, 400).await;
    let steady = Steady::start(&outbox.database.url, &outbox.topics.full(TOPIC), 2);
    eventually(SOON, async || {
        (metric(&first, "outbox_relay_published_rows_total").await > 20.0).then_some(())
    })
    .await;
    eventually(SOON, async || (metric(&first, "outbox_relay_in_flight_rows").await > 0.0).then_some(()))
        .await;
    let held: String = outbox.relay_row("owner").await;
    first.sigstop().await;
    let stopped = Instant::now();
    eventually(SOON, async || {
        (metric(&second, "outbox_relay_published_rows_total").await > 20.0).then_some(())
    })
    .await;
    let row = async || (outbox.relay_row::<String>("owner").await, outbox.relay_row::<i64>("epoch").await);
    let taken = row().await;
    assert_ne!(taken.0, held, "the other has taken over");
    // Three lease times, under load: now it wakes up with rows in its hands.
    tokio::time::sleep((3 * lease).saturating_sub(stopped.elapsed())).await;
    steady.committed(5).await;
    first.sigcont().await;
    steady.committed(5).await;
    eventually(SOON, async || (metric(&first, "outbox_relay_lease_held").await == 0.0).then_some(())).await;
    steady.end().await;
    writers.join_all().await;
    audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!(metric(&second, "outbox_relay_lease_held").await, 1.0, "the newer holder keeps the lease");
    assert_eq!(row().await, taken, "nor does the zombie write to its row");
    assert_eq!((first.terminate().await, second.terminate().await), (Some(0), Some(0)));
    // Whether it repeats is for librdkafka's threads to say, which wake up with it; more than that it never does.
    let audit = audit_to_end(&outbox.topics, TOPIC, &outbox.database.pool).await;
    println!("a zombie: {audit:?}");
}
