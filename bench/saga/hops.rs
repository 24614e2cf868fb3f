//! One turn of hops: orders are placed with nobody reacting, then each process in its turn works its backlog off alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::task::JoinSet;
use waybill_bench::costs::real;
use waybill_bench::cpu::{Look, Spent, Watched};
use waybill_bench::journal::Journal;
use waybill_bench::progress;
use waybill_bench::shop::Shop;
use waybill_bench::system::System;

use crate::stages::{Far, Hop, PLACED, Stages, Who};

/// After the last message of a hop its process still stores offsets or its position: this belongs to it.
const TAIL: Duration = Duration::from_millis(500);
/// Before a process is frozen its client commits the offsets it has stored, each second: else it would read
/// the same again, having left its group, when it is thawed. Not measured.
const COMMITTED: Duration = Duration::from_millis(1_500);
/// How long the servers are watched with everybody frozen.
const IDLE: Duration = Duration::from_secs(3);
/// The first hop, by name.
pub(crate) const PLACE: &str = "orders: place";
/// Everybody whose turn can come.
const ALL: [Who; 4] = [Who::Orders, Who::Inventory, Who::Payments, Who::Relay];
/// The servers, as they are watched.
pub(crate) const SERVERS: [&str; 2] = ["postgres", "kafka"];
/// The load, as it is watched.
const LOAD: &str = "spine";

/// What a hop cost alone, in milliseconds of processor time by order.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Alone {
    /// The process whose hop it is.
    pub(crate) process_ms: f64,
    pub(crate) postgres_ms: f64,
    pub(crate) kafka_ms: f64,
    /// This program, which is no part of the sum.
    pub(crate) load_ms: f64,
    /// Orders per second that it did alone, by the wall's clock.
    pub(crate) rate: f64,
    /// Processor seconds of strangers meanwhile: far from 0 means that it was disturbed.
    pub(crate) others_s: f64,
}

impl Alone {
    /// Process and servers.
    pub(crate) fn sum_ms(&self) -> f64 {
        self.process_ms + self.postgres_ms + self.kafka_ms
    }
}

/// Processor seconds per second of servers that nobody asks.
type IdleRates = BTreeMap<&'static str, f64>;

/// Measures every hop once: by its name, what it cost.
///
/// # Errors
/// When a hop does not come to its end.
pub(crate) async fn turn(
    system: &System,
    shop: &Arc<Shop>,
    journal: &Arc<Journal>,
    clients: u32,
    orders: u32,
) -> Result<Vec<(&'static str, Alone)>> {
    let stages = Stages::of(system);
    let mut far = stages.quiet().await?;
    for who in ALL {
        stages.freeze(who).await;
    }
    let watched = system.watched();
    let idle = idle(&watched).await;
    progress(&format!(
        "hops alone: {orders} orders placed with nobody reacting, then each process in its turn"
    ));
    stages.thaw(Who::Orders).await;
    let clock = Clock::start(&watched);
    place(shop, journal, clients, orders).await?;
    let placed = clock.stop(&watched, Who::Orders, &idle, orders).await;
    freeze(&stages, Who::Orders).await;
    // What was placed is in the outbox of orders: the first hop's backlog.
    far.placed(2 * i64::from(orders));
    let mut all = vec![(PLACE, placed)];
    for hop in &PLACED {
        all.push((hop.name, one(&stages, &watched, hop, &idle, orders, &mut far).await?));
    }
    for who in ALL {
        stages.thaw(who).await;
    }
    Ok(all)
}

async fn one(
    stages: &Stages<'_>,
    watched: &Watched,
    hop: &Hop,
    idle: &IdleRates,
    orders: u32,
    far: &mut Far,
) -> Result<Alone> {
    let clock = Clock::start(watched);
    stages.thaw(hop.who).await;
    stages.through(hop, i64::from(orders), far).await?;
    let alone = clock.stop(watched, hop.who, idle, orders).await;
    freeze(stages, hop.who).await;
    let (name, sum, rate) = (hop.name, alone.sum_ms(), alone.rate);
    progress(&format!("  {name:<40} {sum:>7.3} ms by order, {rate:>6.0} orders/s"));
    Ok(alone)
}

async fn freeze(stages: &Stages<'_>, who: Who) {
    if who != Who::Relay {
        tokio::time::sleep(COMMITTED).await;
    }
    stages.freeze(who).await;
}

/// What the servers use with everybody frozen.
async fn idle(watched: &Watched) -> IdleRates {
    let before = watched.look();
    tokio::time::sleep(IDLE).await;
    let spent = watched.look().since(&before);
    SERVERS.map(|name| (name, cpu_s(&spent, name) / IDLE.as_secs_f64())).into()
}

/// Places orders as fast as so many clients can, each waiting for its answer.
async fn place(shop: &Arc<Shop>, journal: &Arc<Journal>, clients: u32, orders: u32) -> Result<()> {
    let before = journal.accepted_count();
    let mut placing = JoinSet::new();
    for number in 0..clients {
        let mine = orders / clients + u32::from(number < orders % clients);
        let (shop, journal) = (Arc::clone(shop), Arc::clone(journal));
        placing.spawn(async move {
            for _ in 0..mine {
                shop.place(Instant::now(), &journal).await;
            }
        });
    }
    while placing.join_next().await.is_some() {}
    let accepted = journal.accepted_count() - before;
    ensure!(
        u32::try_from(accepted) == Ok(orders),
        "{accepted} of {orders} orders were accepted: {:?}",
        journal.refused()
    );
    Ok(())
}

/// A measured time.
struct Clock {
    began: Instant,
    look: Look,
}

impl Clock {
    fn start(watched: &Watched) -> Self {
        Self { began: Instant::now(), look: watched.look() }
    }

    async fn stop(self, watched: &Watched, who: Who, idle: &IdleRates, orders: u32) -> Alone {
        let worked = self.began.elapsed().as_secs_f64();
        tokio::time::sleep(TAIL).await;
        let (seconds, spent) = (self.began.elapsed().as_secs_f64(), watched.look().since(&self.look));
        let by_order = |cpu_s: f64| 1_000.0 * cpu_s / f64::from(orders);
        let server = |name: &str| {
            let alone = idle.get(name).copied().unwrap_or_default() * seconds;
            by_order((cpu_s(&spent, name) - alone).max(0.0))
        };
        Alone {
            process_ms: by_order(cpu_s(&spent, watched_as(who))),
            postgres_ms: server(SERVERS[0]),
            kafka_ms: server(SERVERS[1]),
            load_ms: by_order(cpu_s(&spent, LOAD)),
            rate: real(i64::from(orders)) / worked,
            others_s: spent.others_cpu_s,
        }
    }
}

fn watched_as(who: Who) -> &'static str {
    match who {
        Who::Orders => "orders",
        Who::Inventory => "inventory",
        Who::Payments => "payments",
        Who::Relay => "relay",
    }
}

fn cpu_s(spent: &Spent, name: &str) -> f64 {
    spent.processes.get(name).map_or(0.0, |used| used.cpu_s)
}
