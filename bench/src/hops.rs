//! Where an order's time goes: the gaps between the messages that carry it, by the outbox rows' own times.
//!
//! A row's `created_at` is the beginning of the transaction that wrote it, by the database server's clock. A gap holds the
//! relay, the broker and the consumer of one hop, and the work before the next transaction begins.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use uuid::Uuid;

use crate::report::Latency;
use crate::system::System;

/// The messages that carry an order to its confirmation, and what happens before each.
const PATH: [(&str, &str); 5] = [
    ("OrderPlaced", ""),
    ("StockReserved", "relay, broker, inventory"),
    ("AuthorizePayment", "relay, broker, orders"),
    ("PaymentAuthorized", "relay, broker, payments and its provider"),
    ("OrderConfirmed", "relay, broker, orders"),
];

/// One gap.
#[derive(Debug, Clone, Serialize)]
pub struct Hop {
    /// The message that ends it.
    pub until: &'static str,
    /// Who works in it.
    pub through: &'static str,
    /// How long it takes.
    pub took: Latency,
}

/// The gaps of these orders.
///
/// # Errors
/// When an outbox can not be read.
pub async fn of(system: &System, orders: &[Uuid]) -> Result<Vec<Hop>> {
    let kinds: Vec<&str> = PATH.iter().map(|(kind, _)| *kind).collect();
    let mut times: HashMap<(Uuid, String), i64> = HashMap::new();
    for service in system.services() {
        let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(
            "select convert_from(key, 'UTF8')::uuid, headers ->> 'ce_type',
                    (extract(epoch from created_at) * 1000000)::bigint
             from outbox where headers ->> 'ce_type' = any($1)",
        )
        .bind(&kinds)
        .fetch_all(&service.database.pool)
        .await
        .context("reading the times of an outbox")?;
        times.extend(rows.into_iter().map(|(order, kind, at_us)| ((order, kind), at_us)));
    }
    let at = |order: Uuid, kind: &str| times.get(&(order, kind.to_owned())).copied();
    let hop = |from: &str, (until, through): (&'static str, &'static str)| {
        let gap = |order: &Uuid| u64::try_from(at(*order, until)? - at(*order, from)?).ok();
        Hop { until, through, took: Latency::of(orders.iter().filter_map(gap).collect()) }
    };
    Ok(PATH.windows(2).map(|pair| hop(pair[0].0, pair[1])).collect())
}
