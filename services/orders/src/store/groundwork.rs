//! SQL before an order is placed whose prices are not known: one statement that reads all it needs.

use std::collections::HashMap;

use sqlx::{FromRow, PgExecutor};
use waybill_events::Sku;

use super::placement::Claim;
use super::rows;
use crate::domain::pricing::Price;

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
