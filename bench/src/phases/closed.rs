//! The closed loop: a few clients as fast as the whole path sustains.
//!
//! A client sends its next order when the last one was answered; past a number of open orders clients wait for one to
//! end. So neither the front nor a growing backlog decides the rate, but the slowest part of the path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{all_ended, is_end};
use crate::arguments::Arguments;
use crate::costs::{Cost, Instruments, real};
use crate::cpu::Spent;
use crate::journal::{Journal, now_us};
use crate::progress;
use crate::report::{Latency, Window};
use crate::shop::Shop;
use crate::system::System;
use crate::watch::Watch;

/// Pause of a client whose order was refused: a server that has too much is not asked faster for it.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// How often progress is told.
const NEWS_INTERVAL: Duration = Duration::from_secs(5);

/// The figures of this phase.
#[derive(Debug, Clone, Serialize)]
pub struct Throughput {
    /// Seconds measured.
    pub seconds: f64,
    /// Orders answered with 202 in a second.
    pub accepted_per_s: f64,
    /// Orders that became CONFIRMED in a second, by their rows.
    pub confirmed_per_s: f64,
    /// Seconds from the last 202 until all had ended.
    pub drain_s: f64,
    /// Requests that were not accepted, by answer.
    pub refused: std::collections::HashMap<String, u64>,
    /// From sending to 202.
    pub place: Latency,
    /// What a confirmed order costs under load.
    pub costs: Vec<Cost>,
    /// The relay's WAL bytes by published event, all databases together.
    pub relay_wal_bytes_per_event: Option<f64>,
    /// CPU time and memory.
    pub spent: Spent,
}

/// What is left to compute when all orders have ended.
struct Raw {
    window: Window,
    spent: Spent,
    marks: (crate::costs::Mark, crate::costs::Mark),
    drain_s: f64,
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
) -> Result<(Throughput, Arc<Journal>)> {
    let journal = Arc::new(Journal::default());
    let open =
        Arc::new(Semaphore::new(usize::try_from(arguments.open_orders_max).context("a number of orders")?));
    let (ended, freed) = (Arc::clone(&journal), Arc::clone(&open));
    let _watch = Watch::begin(vec![system.topics.full("orders.events")], move |event| {
        if is_end(&event.kind) {
            ended.end(event.order, event.at_us);
            freed.add_permits(1);
        }
    })
    .await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..arguments.clients {
        clients.spawn(client(Arc::clone(&shop), Arc::clone(&journal), Arc::clone(&open), Arc::clone(&stop)));
    }
    progress(&format!("closed loop: {} clients, {} s to warm up", arguments.clients, arguments.warm_up_s));
    tokio::time::sleep(Duration::from_secs(arguments.warm_up_s)).await;
    let watched = system.watched();
    let (mark, look, from_us) = (instruments.mark(system).await?, watched.look(), now_us());
    news(&journal, Duration::from_secs(arguments.measure_s)).await;
    let (to_us, spent) = (now_us(), watched.look().since(&look));
    let marks = (mark, instruments.mark(system).await?);
    stop.store(true, Ordering::Relaxed);
    let began = Instant::now();
    // Clients that wait for room see the end too.
    open.add_permits(usize::try_from(arguments.clients).context("a number of clients")?);
    while clients.join_next().await.is_some() {}
    all_ended(&journal).await?;
    let drain_s = began.elapsed().as_secs_f64();
    system.settle().await?;
    let raw = Raw { window: Window { from_us, to_us }, spent, marks, drain_s };
    Ok((figures(system, instruments, &journal, raw).await?, journal))
}

async fn client(shop: Arc<Shop>, journal: Arc<Journal>, open: Arc<Semaphore>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        // Given back by the watch when the order has ended.
        let Ok(room) = open.acquire().await else { return };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if shop.place(Instant::now(), &journal).await.is_some() {
            room.forget();
        } else {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

async fn news(journal: &Journal, during: Duration) {
    let began = Instant::now();
    while began.elapsed() < during {
        let left = during.saturating_sub(began.elapsed());
        tokio::time::sleep(left.min(NEWS_INTERVAL)).await;
        let (accepted, ended) = (journal.accepted_count(), journal.ended_count());
        progress(&format!("closed loop: {accepted} accepted, {ended} ended"));
    }
}

async fn figures(
    system: &System,
    instruments: &Instruments,
    journal: &Journal,
    raw: Raw,
) -> Result<Throughput> {
    let Raw { window, spent, marks: (from, to), drain_s } = raw;
    let accepted: Vec<_> = journal.accepted().into_iter().filter(|order| window.holds(order.at_us)).collect();
    let confirmed = window.confirmed(&system.orders.database.pool).await?;
    let seconds = window.seconds();
    progress("closed loop: reading the log of the measured time");
    let costs = instruments.costs(&from, &to, real(confirmed).max(1.0), &[], false).await?;
    let mut events = 0;
    for service in system.services() {
        events += window.events(&service.database.pool).await?;
    }
    let relay_wal: Option<f64> = costs.iter().map(|cost| cost.relay_wal_bytes).sum();
    Ok(Throughput {
        seconds,
        accepted_per_s: real(i64::try_from(accepted.len()).context("a number of orders")?) / seconds,
        confirmed_per_s: real(confirmed) / seconds,
        drain_s,
        refused: journal.refused(),
        place: Latency::of(accepted.iter().map(|order| order.place_us).collect()),
        relay_wal_bytes_per_event: relay_wal.map(|bytes| bytes * real(confirmed) / real(events).max(1.0)),
        costs,
        spent,
    })
}
