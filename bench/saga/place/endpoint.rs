//! Clients that place orders over HTTP, each as soon as its last one was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use waybill_bench::costs::real;
use waybill_bench::journal::Journal;
use waybill_bench::shop::Shop;

use super::ground::Ground;
use super::{Turn, WARM_UP_S, spent_ms};
use crate::arguments::Arguments;

/// What clients did.
pub(super) struct Placed {
    /// What the measured time gave.
    pub(super) turn: Turn,
    /// Orders of the whole time.
    pub(super) all: i64,
}

/// Loads the endpoint; every request must be accepted.
pub(super) async fn load(ground: &Ground, arguments: &Arguments) -> Result<Placed> {
    let spine = arguments.spine(WARM_UP_S);
    let shop = Arc::new(Shop::at(&ground.orders.url, &ground.tokens, Ground::skus(), &spine)?);
    let (journal, stop) = (Arc::new(Journal::default()), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..arguments.clients {
        let (shop, journal, stop) = (Arc::clone(&shop), Arc::clone(&journal), Arc::clone(&stop));
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) && shop.place(Instant::now(), &journal).await.is_some() {}
        });
    }
    tokio::time::sleep(Duration::from_secs(WARM_UP_S)).await;
    let watched = ground.watched(&[("orders", ground.orders.pid()), ("client", Some(std::process::id()))])?;
    let (began, before, look) = (Instant::now(), journal.accepted_count(), watched.look());
    tokio::time::sleep(Duration::from_secs(arguments.place_s)).await;
    let (seconds, after) = (began.elapsed().as_secs_f64(), journal.accepted_count());
    let spent = watched.look().since(&look);
    stop.store(true, Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    let refused = journal.refused();
    ensure!(refused.is_empty(), "orders were refused: {refused:?}; orders says:\n{}", ground.orders.output());
    let count = |orders: usize| i64::try_from(orders).context("a number of orders");
    let orders = real(count(after - before)?);
    let turn = Turn { per_second: orders / seconds, cpu_ms: spent_ms(&spent, orders) };
    Ok(Placed { turn, all: count(journal.accepted_count())? })
}
