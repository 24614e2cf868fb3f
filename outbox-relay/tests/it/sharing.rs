//! Relays over the same databases share them out: one that comes gets its part, one that ends or dies leaves its own.

use std::time::Duration;

use waybill_testkit::{Process, ProcessBuilder, eventually};

use super::audit::{audit, audit_to_end};
use super::setup::{Outbox, TOPIC, append, ask, metric};
use super::steady::Steady;

/// Four hand-overs, each some seconds after the one before, on a slow machine.
const SOON: Duration = Duration::from_secs(120);
const DATABASES: [&str; 4] = ["a", "b", "c", "d"];
/// Each moves once or twice; more is going back and forth.
const HANDED_OVER_MAX: i64 = 6;

/// After a lease's end, by its row's own times, in seconds. Seldom more than a standby's pause of a quarter of a second: the
/// rest is for a slow machine.
const TAKEN_S_MAX: f64 = 2.5;

struct Four(Vec<Outbox>);

/// A lease as its row says: seconds since 1970 on the database's clock.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    epoch: i64,
    updated_at: f64,
    expires_at: Option<f64>,
}

impl Four {
    async fn new(hint: &str) -> Self {
        let mut outboxes = Vec::new();
        for name in DATABASES {
            outboxes.push(Outbox::new(&format!("{hint}_{name}")).await);
        }
        Self(outboxes)
    }

    fn relay(&self, lease: Duration) -> ProcessBuilder {
        let named = DATABASES.iter().zip(&self.0);
        let urls: Vec<String> =
            named.map(|(name, outbox)| format!("{name}={}", outbox.database.url)).collect();
        let relay = self.0[0].relay().env("OUTBOX_RELAY_DATABASES", urls.join(","));
        relay.env("OUTBOX_RELAY_LEASE_MS", lease.as_millis().to_string())
    }

    async fn writers(&self) -> Vec<Steady> {
        let writers: Vec<Steady> = (self.0.iter())
            .map(|outbox| Steady::start(&outbox.database.url, &outbox.topics.full(TOPIC), 1))
            .collect();
        written(&writers).await;
        writers
    }

    async fn row(&self, place: usize) -> Row {
        let statement = "select epoch, extract(epoch from updated_at)::float8 as updated_at,
                                extract(epoch from lease_expires_at)::float8 as expires_at
                         from outbox_relay where name = 'default'";
        sqlx::query_as(statement).fetch_one(&self.0[place].database.pool).await.unwrap()
    }

    /// The rows of the databases that this relay holds.
    async fn rows_of(&self, relay: &Process) -> Vec<(usize, Row)> {
        let mut rows = Vec::new();
        for (place, held) in held(relay).await.into_iter().enumerate() {
            if held {
                rows.push((place, self.row(place).await));
            }
        }
        rows
    }

    /// How long after the end of these leases they were taken, in seconds; below nought: before.
    async fn taken_after_their_end(&self, rows: Vec<(usize, Row)>) -> Vec<f64> {
        let mut after = Vec::new();
        for (place, before) in rows {
            let taken = eventually(SOON, async || {
                let row = self.row(place).await;
                (row.epoch > before.epoch && row.expires_at.is_some()).then_some(row)
            });
            after.push(taken.await.updated_at - before.expires_at.unwrap());
        }
        after
    }

    /// How often leases were taken; a machine that is too slow to renew one makes it more than a test has asked for.
    async fn taken(&self) -> i64 {
        let mut taken = 0;
        for place in 0..DATABASES.len() {
            taken += self.row(place).await.epoch;
        }
        taken
    }

    /// Ends the writers; everything is published, in order. Returns the repeats.
    async fn audited(&self, writers: Vec<Steady>) -> usize {
        for writer in writers {
            writer.end().await;
        }
        let mut repeats = 0;
        for outbox in &self.0 {
            audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
            repeats += audit_to_end(&outbox.topics, TOPIC, &outbox.database.pool).await.repeats;
        }
        repeats
    }
}

async fn written(writers: &[Steady]) {
    for writer in writers {
        writer.committed(20).await;
    }
}

async fn values(relay: &Process, name: &str) -> Vec<f64> {
    let (_, text) = ask(relay, "/metrics").await;
    let value = |database: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{database=\"{database}\"}}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    };
    DATABASES.iter().map(|database| value(database)).collect()
}

async fn held(relay: &Process) -> Vec<bool> {
    values(relay, "outbox_relay_lease_held").await.into_iter().map(|value| value == 1.0).collect()
}

async fn handed_over(relays: &[&Process]) -> i64 {
    let mut sum = 0.0;
    for relay in relays {
        sum += values(relay, "outbox_relay_handed_over_total").await.iter().sum::<f64>();
    }
    sum as i64
}

/// Leases that were only ever given back cleanly, `expected` in all, make no repeats.
fn clean(taken: i64, expected: i64, repeats: usize) {
    println!("leases taken {taken} times, {expected} expected, {repeats} repeats");
    assert!(taken >= expected && (repeats == 0 || taken > expected));
}

/// Waits until the relays hold so many, in whatever order. Each says all the time that it is ready, or that a server is slow.
async fn divided(relays: &[&Process], expected: &[usize]) {
    eventually(SOON, async || {
        let mut counts = Vec::new();
        let mut by_whom = [0; DATABASES.len()];
        for relay in relays {
            let (_, body) = ask(relay, "/ready").await;
            assert!(!body.contains("has not come to its database yet"), "{body}\n{}", relay.output());
            let held = held(relay).await;
            counts.push(held.iter().filter(|held| **held).count());
            (0..held.len()).for_each(|place| by_whom[place] += usize::from(held[place]));
        }
        counts.sort_unstable();
        (counts == expected && by_whom == [1; DATABASES.len()]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_comes_late_gets_half_and_all_when_the_other_is_killed() {
    let lease = Duration::from_secs(5);
    let four = Four::new("late").await;
    let mut first = four.relay(lease).spawn();
    first.wait_ready(SOON).await;
    divided(&[&first], &[4]).await;
    let writers = four.writers().await;
    let mut second = four.relay(lease).spawn();
    second.wait_ready(SOON).await;
    divided(&[&first, &second], &[2, 2]).await;
    written(&writers).await;
    let repeats = four.audited(writers).await;
    let handed_over = handed_over(&[&first, &second]).await;
    clean(four.taken().await, 4 + handed_over, repeats);
    println!("two and two after {handed_over} hand-overs");
    assert!((2..=HANDED_OVER_MAX).contains(&handed_over), "{handed_over}");
    assert!(first.output().contains("handed over for balance"), "told:\n{}", first.output());

    let writers = four.writers().await;
    let of_first = four.rows_of(&first).await;
    assert_eq!(of_first.len(), 2);
    first.kill9().await;
    // What it wrote last.
    let mut left = Vec::new();
    for (place, _) in of_first {
        left.push((place, four.row(place).await));
    }
    let after = four.taken_after_their_end(left).await;
    println!("killed: taken {after:?} s after the lease's end");
    assert!(after.iter().all(|after| (0.0..TAKEN_S_MAX).contains(after)), "{after:?}");
    divided(&[&second], &[4]).await;
    written(&writers).await;
    println!("killed: {} repeats", four.audited(writers).await);
    assert_eq!(second.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_start_together_share_and_a_third_comes_and_goes() {
    let lease = Duration::from_secs(10);
    let four = Four::new("together").await;
    let (mut first, mut second) = (four.relay(lease).spawn(), four.relay(lease).spawn());
    first.wait_ready(SOON).await;
    second.wait_ready(SOON).await;
    divided(&[&first, &second], &[2, 2]).await;
    println!("started together: {} hand-overs", handed_over(&[&first, &second]).await);
    let writers = four.writers().await;
    let mut third = four.relay(lease).spawn();
    third.wait_ready(SOON).await;
    divided(&[&first, &second, &third], &[1, 1, 2]).await;
    written(&writers).await;

    // Each that ends hands over at once: long before its leases would have run out.
    let of_third = four.rows_of(&third).await;
    let by_ends = of_third.len();
    let mut handed = handed_over(&[&third]).await;
    assert_eq!(third.terminate().await, Some(0));
    let after = four.taken_after_their_end(of_third).await;
    println!("ended: taken {after:?} s after the lease's end");
    assert!(!after.is_empty() && after.iter().all(|after| *after < 0.0), "{after:?}");
    divided(&[&first, &second], &[2, 2]).await;
    let of_first = four.rows_of(&first).await;
    let by_ends = i64::try_from(by_ends + of_first.len()).unwrap();
    handed += handed_over(&[&first]).await;
    assert_eq!(first.terminate().await, Some(0));
    let after = four.taken_after_their_end(of_first).await;
    println!("ended: taken {after:?} s after the lease's end");
    assert!(after.len() == 2 && after.iter().all(|after| *after < 0.0), "{after:?}");
    divided(&[&second], &[4]).await;
    written(&writers).await;
    handed += handed_over(&[&second]).await;
    let repeats = four.audited(writers).await;
    clean(four.taken().await, 4 + handed + by_ends, repeats);
    assert_eq!(second.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_published_counts_as_held_and_is_not_handed_over() {
    let (bad, good) = (Outbox::new("share_bad").await, Outbox::new("share_good").await);
    let mut in_bad = bad.connection().await;
    append(&mut in_bad, &bad.topics.full("late.events"), 1).await;
    let databases = format!("a={},b={}", bad.database.url, good.database.url);
    let relay = || good.relay().env("OUTBOX_RELAY_DATABASES", databases.clone());
    let mut first = relay().spawn();
    let fault = "outbox_relay_fault{database=\"a\",kind=\"topic\"}";
    eventually(SOON, async || (metric(&first, fault).await == 1.0).then_some(())).await;
    eventually(SOON, async || (held(&first).await[..2] == [true, true]).then_some(())).await;
    let mut second = relay().spawn();
    second.wait_ready(SOON).await;
    eventually(SOON, async || (held(&second).await[..2] == [false, true]).then_some(())).await;
    // Mended where it was: nobody has taken it meanwhile, nothing is published twice.
    bad.topics.add(&[("late.events", 1)]).await;
    first.wait_ready(SOON).await;
    assert_eq!(audit(&bad.topics, "late.events", &bad.database.pool).await.repeats, 0);
    assert_eq!((held(&first).await[0], bad.relay_row::<i64>("epoch").await), (true, 1));
    assert_eq!(second.terminate().await, Some(0));
    eventually(SOON, async || (held(&first).await[..2] == [true, true]).then_some(())).await;
    assert_eq!(first.terminate().await, Some(0));
}
