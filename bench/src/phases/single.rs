//! One order alone on a quiet system, many times: what it costs in statements, round trips and WAL.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::costs::{Cost, Idle, Instruments};
use crate::journal::Journal;
use crate::progress;
use crate::report::Latency;
use crate::shop::Shop;
use crate::system::System;
use crate::wal::TableBytes;
use crate::watch::{Seen, Watch};

/// Orders before anything is counted: connections are opened, statements prepared, caches filled.
const WARM_UP_ORDERS: u32 = 20;
/// How long the idle system is watched.
const IDLE: Duration = Duration::from_secs(5);
/// Longest wait for one event of one order.
const EVENT_TIMEOUT: Duration = Duration::from_secs(30);
/// What is waited for before the next order: its saga has nothing left to do then.
const LAST_EVENTS: [&str; 3] = ["OrderConfirmed", "PaymentCaptured", "StockCommitted"];

/// The figures of this phase, by order.
#[derive(Debug, Clone, Serialize)]
pub struct Single {
    /// Orders that each figure is an average of.
    pub orders: u32,
    /// Placing alone: the relay was stopped, nobody reacted.
    pub placed: Vec<Cost>,
    /// The whole path, one order at a time.
    pub whole: Vec<Cost>,
    /// Of the whole path, the tables that WAL was written for.
    pub wal_by_table: Option<Vec<TableBytes>>,
    /// What runs with no order about, already taken off.
    pub idle: Vec<Idle>,
    /// From 202 to the customer's reading `OrderConfirmed`, one order at a time.
    pub confirmed_seen: Latency,
}

/// Measures.
///
/// # Errors
/// When an order does not end, or the servers can not be asked.
pub async fn run(
    system: &mut System,
    shop: &Shop,
    instruments: &Instruments,
    journal: &Journal,
    orders: u32,
) -> Result<Single> {
    let (tell, mut seen) = unbounded_channel();
    let names = ["orders.events", "inventory.events", "payments.events"].map(|name| system.topics.full(name));
    let watch = Watch::begin(names.to_vec(), move |event| {
        // The receiver goes with the phase.
        let _ = tell.send(event);
    })
    .await?;
    progress(&format!("single orders: {WARM_UP_ORDERS} to warm up, then {IDLE:?} idle"));
    for _ in 0..WARM_UP_ORDERS {
        whole(shop, journal, &mut seen).await?;
    }
    let from = instruments.mark(system).await?;
    tokio::time::sleep(IDLE).await;
    let idle = instruments.idle(&from, &instruments.mark(system).await?).await?;

    progress(&format!("single orders: {orders} one by one, the whole path"));
    let mut latencies = Vec::new();
    let from = instruments.mark(system).await?;
    for _ in 0..orders {
        latencies.push(whole(shop, journal, &mut seen).await?);
    }
    let to = instruments.mark(system).await?;
    let whole = instruments.costs(&from, &to, f64::from(orders), &idle, true).await?;
    let wal_by_table = instruments.tables(&from, &to, f64::from(orders)).await?;
    drop(watch);

    progress(&format!("single orders: {orders} placed with the relay stopped"));
    system.relay_stop().await?;
    let from = instruments.mark(system).await?;
    for _ in 0..orders {
        place(shop, journal).await?;
    }
    let to = instruments.mark(system).await?;
    let placed = instruments.costs(&from, &to, f64::from(orders), &idle, true).await?;
    system.relay_start().await;
    system.settle().await?;
    Ok(Single { orders, placed, whole, wal_by_table, idle, confirmed_seen: Latency::of(latencies) })
}

async fn place(shop: &Shop, journal: &Journal) -> Result<crate::journal::Accepted> {
    let accepted = shop.place(Instant::now(), journal).await;
    accepted.with_context(|| format!("an order was refused: {:?}", journal.refused()))
}

/// Places one order and waits until nothing is left to do for it; answers the microseconds from 202 to confirmed.
async fn whole(shop: &Shop, journal: &Journal, seen: &mut UnboundedReceiver<Seen>) -> Result<u64> {
    let accepted = place(shop, journal).await?;
    let mut missing: HashSet<&str> = LAST_EVENTS.into();
    let mut confirmed_us = 0;
    while !missing.is_empty() {
        let event = tokio::time::timeout(EVENT_TIMEOUT, seen.recv()).await;
        let event = event
            .with_context(|| format!("order {}: no {missing:?} within {EVENT_TIMEOUT:?}", accepted.id))?;
        let Some(event) = event else { bail!("the topics are not watched any more") };
        if event.order == accepted.id {
            missing.remove(event.kind.as_str());
            if event.kind == "OrderConfirmed" {
                confirmed_us = since(event.at_us, accepted.at_us);
            }
        }
    }
    Ok(confirmed_us)
}

fn since(later_us: i64, earlier_us: i64) -> u64 {
    u64::try_from(later_us - earlier_us).unwrap_or_default()
}
