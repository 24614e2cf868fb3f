//! Whether the figures may be told: every order ended well, nothing is lost, nothing is doubled.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::message::Message as _;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::shop::STOCK_PIECES;
use crate::system::System;
use crate::topics;

/// Longest wait until the relay has published what the outboxes hold.
const PUBLISHED_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the topics' ends are looked at meanwhile.
const PUBLISHED_POLL: Duration = Duration::from_millis(250);

/// What was found right.
#[derive(Debug, Clone, Serialize)]
pub struct Audited {
    /// Orders that were accepted and are CONFIRMED, paid and shipped.
    pub orders: usize,
    /// Messages of the outboxes, each found in its topic.
    pub messages: usize,
    /// Records beyond that, with ids seen before: allowed, consumers drop them.
    pub repeats: usize,
}

/// Checks everything against the orders that clients were promised.
///
/// # Errors
/// The first thing that is not as it must be.
pub async fn audit(system: &System, accepted: &HashSet<Uuid>) -> Result<Audited> {
    let totals = orders(&system.orders.database.pool, accepted).await?;
    money(&system.payments.database.pool, &totals).await?;
    stock(system).await?;
    let mut outbox: BTreeMap<String, HashSet<Uuid>> = BTreeMap::new();
    for service in system.services() {
        let rows: Vec<(String, Uuid)> = sqlx::query_as("select topic, message_id from outbox")
            .fetch_all(&service.database.pool)
            .await
            .context("reading an outbox")?;
        for (topic, id) in rows {
            ensure!(outbox.entry(topic).or_default().insert(id), "message {id} stands twice in an outbox");
        }
    }
    let prefix = system.topics.prefix.clone();
    let published = tokio::task::spawn_blocking(move || published(&prefix, &outbox));
    let (messages, repeats) = published.await.context("reading the topics")??;
    Ok(Audited { orders: totals.len(), messages, repeats })
}

/// Every accepted order is CONFIRMED, and there is no other; answers what each costs.
async fn orders(pool: &PgPool, accepted: &HashSet<Uuid>) -> Result<HashMap<Uuid, i64>> {
    let rows: Vec<(Uuid, String, i64)> = sqlx::query_as("select id, status, total_minor from orders")
        .fetch_all(pool)
        .await
        .context("reading orders")?;
    let mut totals = HashMap::new();
    for (id, status, total_minor) in rows {
        ensure!(accepted.contains(&id), "order {id} was never accepted, and is {status}");
        ensure!(status == "CONFIRMED", "order {id} was accepted, and is {status}");
        totals.insert(id, total_minor);
    }
    let lost: Vec<_> = accepted.iter().filter(|id| !totals.contains_key(id)).collect();
    ensure!(lost.is_empty(), "{} accepted orders are lost, {:?} among them", lost.len(), lost.first());
    Ok(totals)
}

/// Each order is captured once, in full.
async fn money(pool: &PgPool, totals: &HashMap<Uuid, i64>) -> Result<()> {
    let rows: Vec<(Uuid, String, i64)> =
        sqlx::query_as("select order_id, state, captured_minor from payments")
            .fetch_all(pool)
            .await
            .context("reading payments")?;
    ensure!(rows.len() == totals.len(), "{} payments for {} orders", rows.len(), totals.len());
    for (id, state, captured) in rows {
        let total = totals.get(&id).with_context(|| format!("a payment for {id}, which is no order"))?;
        ensure!(
            state == "captured" && captured == *total,
            "order {id} costs {total}, its payment is {state} with {captured}"
        );
    }
    Ok(())
}

/// Of each product, what was ordered was shipped and the rest is there.
async fn stock(system: &System) -> Result<()> {
    let ordered: Vec<(String, i64)> =
        sqlx::query_as("select sku, sum(quantity)::bigint from order_lines group by sku")
            .fetch_all(&system.orders.database.pool)
            .await
            .context("reading order lines")?;
    let ordered: HashMap<String, i64> = ordered.into_iter().collect();
    let rows: Vec<(String, i64, i64, i64)> =
        sqlx::query_as("select sku, available, reserved, shipped from stock")
            .fetch_all(&system.inventory.database.pool)
            .await
            .context("reading the stock")?;
    for (sku, available, reserved, shipped) in rows {
        let sold = ordered.get(&sku).copied().unwrap_or_default();
        ensure!(
            (available, reserved, shipped) == (STOCK_PIECES - sold, 0, sold),
            "of {sku} {sold} pieces were ordered: {available} available, {reserved} reserved, {shipped} shipped"
        );
    }
    Ok(())
}

/// Every outbox row is in its topic, nothing else is, each key's sequence is 1..n by first appearance.
fn published(prefix: &str, outbox: &BTreeMap<String, HashSet<Uuid>>) -> Result<(usize, usize)> {
    let (mut messages, mut repeats) = (0, 0);
    for name in topics::names(prefix)? {
        let none = HashSet::new();
        let ids = outbox.get(&name).unwrap_or(&none);
        wait_published(&name, ids.len())?;
        let mut seen = HashSet::with_capacity(ids.len());
        let mut last: HashMap<Vec<u8>, i64> = HashMap::new();
        topics::read_to_end(&name, |message| {
            let id: Uuid = topics::header(message, "ce_id").context("a record without id")?.parse()?;
            ensure!(ids.contains(&id), "{name}: {id} is in no outbox");
            if !seen.insert(id) {
                repeats += 1;
                return Ok(());
            }
            let sequence: i64 = topics::header(message, "ce_sequence").context("no ce_sequence")?.parse()?;
            let key = message.key().unwrap_or_default();
            let before = last.insert(key.to_vec(), sequence).unwrap_or_default();
            let key = String::from_utf8_lossy(key);
            ensure!(sequence == before + 1, "{name}: key {key}: {sequence} comes after {before}");
            Ok(())
        })?;
        ensure!(seen.len() == ids.len(), "{name}: {} of {} messages came", seen.len(), ids.len());
        ensure!(!name.ends_with(".dlq") || ids.is_empty(), "{name}: {} dead letters", ids.len());
        messages += seen.len();
    }
    Ok((messages, repeats))
}

fn wait_published(topic: &str, count: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let there = topics::count(topic)?;
        if usize::try_from(there).is_ok_and(|there| there >= count) {
            return Ok(());
        }
        if began.elapsed() > PUBLISHED_TIMEOUT {
            bail!("{topic}: {there} of {count} messages are published after {PUBLISHED_TIMEOUT:?}");
        }
        std::thread::sleep(PUBLISHED_POLL);
    }
}
