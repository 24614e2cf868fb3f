//! The open loop: orders come at a given rate, whatever became of those before; how long does each take?
//!
//! Arrivals are drawn before (exponential gaps), and each order's time runs from its arrival: a server that stalls
//! is charged with everybody who came meanwhile (no coordinated omission).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{all_ended, is_end};
use crate::arguments::Arguments;
use crate::costs::{Cost, Instruments, real};
use crate::cpu::Spent;
use crate::hops::{self, Hop};
use crate::journal::{Accepted, Journal, now_us};
use crate::progress;
use crate::report::{Latency, Window};
use crate::shop::Shop;
use crate::system::System;
use crate::watch::Watch;

/// Requests that may be unanswered at once: past it arrivals wait, their time running.
const UNANSWERED_MAX: usize = 512;
/// Longest time before the measured one: the closed loop has warmed everything.
const WARM_UP_S_MAX: u64 = 5;
/// The arrivals of every run are the same.
const SEED: u64 = 7;

/// The figures of this phase.
#[derive(Debug, Clone, Serialize)]
pub struct OpenLoop {
    /// Orders per second that came.
    pub rate_per_s: f64,
    /// Seconds measured.
    pub seconds: f64,
    /// Requests that were not accepted, by answer.
    pub refused: HashMap<String, u64>,
    /// From an order's arrival to its 202.
    pub place: Latency,
    /// From 202 to the row's becoming CONFIRMED (`updated_at`, by the same machine's clock, set just before the commit).
    pub confirmed: Latency,
    /// From 202 to a customer's reading `OrderConfirmed` in `orders.events`: commit and relay included.
    pub confirmed_seen: Latency,
    /// Where that time goes.
    pub hops: Vec<Hop>,
    /// What an order costs at this rate.
    pub costs: Vec<Cost>,
    /// CPU time and memory.
    pub spent: Spent,
}

/// Measures.
///
/// # Errors
/// When orders stop ending, or the servers can not be asked.
pub async fn run(
    system: &System,
    shop: Arc<Shop>,
    instruments: &Instruments,
    arguments: &Arguments,
    rate_per_s: f64,
) -> Result<(OpenLoop, Arc<Journal>)> {
    let journal = Arc::new(Journal::default());
    let ended = Arc::clone(&journal);
    let _watch = Watch::begin(vec![system.topics.full("orders.events")], move |event| {
        if is_end(&event.kind) {
            ended.end(event.order, event.at_us);
        }
    })
    .await?;
    let warm_up_s = arguments.warm_up_s.min(WARM_UP_S_MAX);
    let measured_s = arguments.open_loop_s;
    progress(&format!("open loop: {rate_per_s:.0} orders/s for {warm_up_s} s + {measured_s} s"));
    let began = Instant::now();
    let warm = Duration::from_secs(warm_up_s);
    let arrivals = arrivals(rate_per_s, warm + Duration::from_secs(arguments.open_loop_s));
    let split = arrivals.partition_point(|at| *at < warm);
    send(&arrivals[..split], began, &shop, &journal).await;
    let watched = system.watched();
    let (mark, look, from_us) = (instruments.mark(system).await?, watched.look(), now_us());
    send(&arrivals[split..], began, &shop, &journal).await;
    let (spent, to_us) = (watched.look().since(&look), now_us());
    let to = instruments.mark(system).await?;
    all_ended(&journal).await?;
    system.settle().await?;
    let window = Window { from_us, to_us };
    let measured: Vec<Accepted> =
        journal.accepted().into_iter().filter(|order| window.holds(order.at_us)).collect();
    let confirmed = real(window.confirmed(&system.orders.database.pool).await?).max(1.0);
    let open_loop = OpenLoop {
        rate_per_s,
        seconds: window.seconds(),
        refused: journal.refused(),
        place: Latency::of(measured.iter().map(|order| order.place_us).collect()),
        confirmed: from_202(&measured, &updated(&system.orders.database.pool).await?),
        confirmed_seen: from_202(&measured, &journal.ended()),
        hops: hops::of(system, &measured.iter().map(|order| order.id).collect::<Vec<_>>()).await?,
        costs: instruments.costs(&mark, &to, confirmed, &[], false).await?,
        spent,
    };
    Ok((open_loop, journal))
}

/// When orders arrive, from the beginning.
fn arrivals(rate_per_s: f64, during: Duration) -> Vec<Duration> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut at = Duration::ZERO;
    let mut all = Vec::new();
    loop {
        // 1 - [0, 1) is never 0, whose logarithm would be infinite.
        let gap_s = -(1.0 - rng.random::<f64>()).ln() / rate_per_s;
        at += Duration::from_secs_f64(gap_s);
        if at >= during {
            return all;
        }
        all.push(at);
    }
}

/// Sends each order at its time and waits for all answers.
async fn send(arrivals: &[Duration], began: Instant, shop: &Arc<Shop>, journal: &Arc<Journal>) {
    let mut unanswered = JoinSet::new();
    for at in arrivals {
        let intended = began + *at;
        tokio::time::sleep_until(intended.into()).await;
        while unanswered.try_join_next().is_some() {}
        if unanswered.len() >= UNANSWERED_MAX {
            unanswered.join_next().await;
        }
        let (shop, journal) = (Arc::clone(shop), Arc::clone(journal));
        unanswered.spawn(async move { shop.place(intended, &journal).await });
    }
    while unanswered.join_next().await.is_some() {}
}

/// When each confirmed order was last changed, in microseconds since 1970: confirming it was the last change.
async fn updated(pool: &PgPool) -> Result<HashMap<Uuid, i64>> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select id, (extract(epoch from updated_at) * 1000000)::bigint from orders where status = 'CONFIRMED'",
    )
    .fetch_all(pool)
    .await
    .context("asking when orders were confirmed")?;
    Ok(rows.into_iter().collect())
}

fn from_202(accepted: &[Accepted], ended: &HashMap<Uuid, i64>) -> Latency {
    let took =
        |order: &Accepted| Some(u64::try_from(ended.get(&order.id)? - order.at_us).unwrap_or_default());
    Latency::of(accepted.iter().filter_map(took).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_in_order() {
        let all = arrivals(100.0, Duration::from_secs(100));
        assert!(all.is_sorted());
        assert!((9_500..10_500).contains(&all.len()), "{}", all.len());
    }
}
