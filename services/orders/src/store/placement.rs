//! SQL of placing an order: one statement that reads all it needs, one that writes all of it.

use std::collections::HashMap;

use sqlx::{FromRow, PgExecutor};
use waybill_events::Sku;
use waybill_http::idempotency::{IdempotencyKey, StoredResponse};
use waybill_outbox::append::AppendArrays;

use super::rows;
use crate::domain::order::PlacedOrder;
use crate::domain::pricing::Price;

/// A request that may come again: whose key on which endpoint, and the body it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose key: the caller's subject.
    pub scope: String,
    /// Method and route.
    pub endpoint: &'static str,
    /// The caller's key.
    pub key: IdempotencyKey,
    /// Hash of the parsed body.
    pub hash: [u8; 32],
}

/// What is known before an order is placed.
#[derive(Debug)]
pub struct Groundwork {
    /// Whether the request's key has been used before.
    pub key_used: bool,
    /// The catalogue's prices, of those SKUs that it has.
    pub prices: HashMap<Sku, Price>,
}

#[derive(FromRow)]
struct GroundworkRow {
    key_used: bool,
    skus: Vec<String>,
    unit_prices_minor: Vec<i64>,
    currencies: Vec<String>,
}

/// Looks whether the request's key was used, and what these SKUs cost.
///
/// # Errors
/// Any [`sqlx::Error`].
pub async fn groundwork(
    executor: impl PgExecutor<'_>,
    claim: &Claim,
    skus: &[&str],
) -> Result<Groundwork, sqlx::Error> {
    let row: GroundworkRow = sqlx::query_as(
        "select exists (
                    select from idempotency_keys where scope = $1 and endpoint = $2 and key = $3
                ) as key_used,
                coalesce(array_agg(sku), '{}') as skus,
                coalesce(array_agg(unit_price_minor), '{}') as unit_prices_minor,
                coalesce(array_agg(currency), '{}') as currencies
         -- No lock: a price that changes before the order is written comes too late for it.
         from catalogue where sku = any($4)",
    )
    .bind(&claim.scope)
    .bind(claim.endpoint)
    .bind(claim.key.as_str())
    .bind(skus)
    .fetch_one(executor)
    .await?;
    let amounts = row.unit_prices_minor.into_iter().zip(&row.currencies);
    let prices = row.skus.iter().zip(amounts).map(|(sku, (unit_price_minor, currency))| {
        let currency = rows::currency("catalogue", currency)?;
        Ok((rows::sku("catalogue", sku)?, Price { unit_price_minor, currency }))
    });
    Ok(Groundwork { key_used: row.key_used, prices: prices.collect::<Result<_, sqlx::Error>>()? })
}

/// A new order with all that belongs to it.
pub struct Placement<'a> {
    /// The request it answers.
    pub claim: &'a Claim,
    /// The answer.
    pub answer: &'a StoredResponse,
    /// The order and its lines.
    pub placed: &'a PlacedOrder,
    /// Its saga, as `saga_start` takes it.
    pub saga: &'a str,
    /// Its first messages, as `outbox_append` takes them.
    pub messages: &'a AppendArrays,
    /// Where its prices come from.
    pub prices: Prices,
}

/// Where the prices of a new order come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prices {
    /// The catalogue, a statement ago.
    JustRead,
    /// An earlier order: it is placed only if each is still the catalogue's.
    Remembered,
}

/// What became of a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placing {
    /// It is written.
    Placed,
    /// The key is taken, and nothing was written.
    KeyTaken,
    /// The catalogue says another price by now, and nothing was written.
    PriceChanged,
}

/// Writes a new order with its key, lines, saga and messages in one statement, which is a transaction of its own unless
/// the caller has begun one.
///
/// # Errors
/// Any [`sqlx::Error`]. When the connection is lost nobody knows whether it is written; the key tells.
pub async fn order_place(
    executor: impl PgExecutor<'_>,
    placement: Placement<'_>,
) -> Result<Placing, sqlx::Error> {
    let Placement { claim, answer, placed: PlacedOrder { order, lines }, saga, messages, prices } = placement;
    let skus: Vec<_> = lines.iter().map(|line| line.sku.as_str()).collect();
    let quantities: Vec<_> = lines.iter().map(|line| line.quantity).collect();
    let unit_prices: Vec<_> = lines.iter().map(|line| line.unit_price_minor).collect();
    let (priced, won): (bool, bool) = sqlx::query_as(
        "with priced as materialized (
             -- No lock: a price that changes before the commit comes too late for this order.
             select not $24 or count(*) = cardinality($15::text[]) as same
             from unnest($15::text[], $17::bigint[]) as l (sku, unit_price_minor)
             join catalogue c on c.sku = l.sku and c.unit_price_minor = l.unit_price_minor and c.currency = $11
         ), claim as materialized (
             -- The key comes next: a second request with it waits here, and writes nothing once the first has committed.
             select idempotency_claim($1, $2, $3, $4, $5, $6::json, $7) as won from priced where same
         ), placed as (
             insert into orders (id, customer_id, status, currency, total_minor, version, created_at, updated_at)
             select $8, $9, $10, $11, $12, $13, $14, $14 from claim where won
             returning id
         ), lined as (
             insert into order_lines (order_id, sku, place, quantity, unit_price_minor)
             select placed.id, l.sku, l.place - 1, l.quantity, l.unit_price_minor
             from placed, unnest($15::text[], $16::int[], $17::bigint[]) with ordinality
                 as l (sku, quantity, unit_price_minor, place)
         ), started as materialized (
             select saga_start($18::json) from placed
         ), appended as materialized (
             -- Nobody else can know of the order before the commit: there is no aggregate row to lock first.
             select outbox_append($19, $20, $21, $22, $23) from placed
         )
         select same, (select count(*) from started) + (select count(*) from appended) = 2 as won from priced",
    )
    .bind(&claim.scope)
    .bind(claim.endpoint)
    .bind(claim.key.as_str())
    .bind(claim.hash.as_slice())
    .bind(answer.status_column())
    .bind(answer.headers_json())
    .bind(&answer.body)
    .bind(order.id.as_uuid())
    .bind(order.customer_id.as_uuid())
    .bind(order.state.status().as_str())
    .bind(order.currency.as_str())
    .bind(order.total_minor)
    .bind(order.version)
    .bind(order.created_at)
    .bind(skus)
    .bind(quantities)
    .bind(unit_prices)
    .bind(saga)
    .bind(&messages.message_ids)
    .bind(&messages.topics)
    .bind(&messages.keys)
    .bind(&messages.headers)
    .bind(&messages.payloads)
    .bind(prices == Prices::Remembered)
    .fetch_one(executor)
    .await?;
    Ok(match (priced, won) {
        (_, true) => Placing::Placed,
        (true, false) => Placing::KeyTaken,
        (false, false) => Placing::PriceChanged,
    })
}
