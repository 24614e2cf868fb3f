//! A small catalogue through the real HTTP API: what is there already is left alone. Ready is told when it can be ordered.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::http;
use crate::keys::Key;
use crate::say;
use crate::servers::Context;
use crate::token::{self, Role};

/// How long the seeding token lives, in seconds.
const TOKEN_TTL_S: u64 = 300;
/// How long the catalogue may take through the relay and Kafka, in seconds: a new consumer group has to be formed first.
const KNOWN_TIMEOUT_S: u64 = 90;
/// How often orders is asked, in milliseconds.
const PROBE_INTERVAL_MS: u64 = 200;
/// How often the wait says that it still waits, in seconds.
const NEWS_INTERVAL_S: u64 = 5;
/// Nothing in the catalogue is priced in it.
const OTHER_CURRENCY: &str = "CHF";
/// The product of the printed commands.
pub(super) const FIRST_SKU: &str = "COFFEE-1KG";

/// SKU, name, price in minor units, pieces in stock. The last has so few that an order can ask for too many.
const CATALOGUE: [(&str, &str, i64, i64); 5] = [
    (FIRST_SKU, "Coffee, whole beans, 1 kg", 1_890, 10_000),
    ("TEA-100G", "Tea, first flush, 100 g", 1_250, 5_000),
    ("TEAPOT", "Teapot, cast iron", 6_400, 300),
    ("GRINDER", "Coffee grinder", 12_900, 120),
    ("CUP-LIMITED", "Cup, limited edition", 3_500, 3),
];

/// Adds the products that inventory does not know yet, with their stock.
pub(super) fn run(context: Context<'_>, urls: &BTreeMap<String, String>, key: &Key) -> Result<()> {
    let inventory = urls.get("inventory").context("inventory has no address")?;
    let token = token::sign(key, "xtask-seed", Role::Admin, TOKEN_TTL_S)?;
    let mut added = 0;
    for (sku, name, price, quantity) in CATALOGUE {
        context.stop.check()?;
        let product = json!({"sku": sku, "name": name, "unit_price_minor": price, "currency": "EUR"});
        added += u32::from(
            add(inventory, &token, &product, quantity).with_context(|| format!("could not seed {sku}"))?,
        );
    }
    if added > 0 {
        say::progress(&format!("seeded the catalogue with {added} products"));
    }
    wait_until_orders_knows(context, urls, key)
}

/// The prices come to orders through Kafka: until then an order would be refused as `unknown_sku`.
fn wait_until_orders_knows(context: Context<'_>, urls: &BTreeMap<String, String>, key: &Key) -> Result<()> {
    let orders = urls.get("orders").context("orders has no address")?;
    let token = token::sign(key, &token::random_uuid(), Role::Customer, TOKEN_TTL_S)?;
    let began = Instant::now();
    let mut news = Duration::from_secs(NEWS_INTERVAL_S);
    loop {
        let unknown = unknown_to(orders, &token).context("orders could not be asked for the catalogue")?;
        if unknown.is_empty() {
            return Ok(());
        }
        let waited = began.elapsed();
        if waited > Duration::from_secs(KNOWN_TIMEOUT_S) {
            bail!(
                "after {KNOWN_TIMEOUT_S} s orders has not heard of {} from inventory: `cargo xtask logs outbox-relay` may tell why",
                unknown.join(", ")
            );
        }
        if waited >= news {
            news += Duration::from_secs(NEWS_INTERVAL_S);
            say::progress(&format!("  waiting until orders has heard of {} ...", unknown.join(", ")));
        }
        context.stop.pause(Duration::from_millis(PROBE_INTERVAL_MS))?;
    }
}

/// The SKUs that orders can not price. Asked in a currency that none of them has: whatever is known, nothing is ordered.
fn unknown_to(orders: &str, token: &str) -> Result<Vec<String>> {
    let lines: Vec<Value> = CATALOGUE.iter().map(|(sku, ..)| json!({"sku": sku, "quantity": 1})).collect();
    let body = json!({"lines": lines, "currency": OTHER_CURRENCY, "payment_token": "tok_decline"});
    let answer = http::post(&format!("{orders}/api/v1/orders"), token, &token::random_uuid(), &body)?;
    // Too early, or too busy.
    if answer.status == 503 {
        return Ok(CATALOGUE.iter().map(|(sku, ..)| (*sku).to_owned()).collect());
    }
    Ok(unknown_in(&answer.json(&[422])?))
}

fn unknown_in(refusal: &Value) -> Vec<String> {
    let details = refusal["error"]["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    let unknown = |detail: &&Value| detail["code"] == "unknown_sku";
    let sku = |detail: &Value| {
        let line =
            detail["path"].as_str()?.strip_prefix("lines[")?.split(']').next()?.parse::<usize>().ok()?;
        CATALOGUE.get(line).map(|(sku, ..)| (*sku).to_owned())
    };
    details.iter().filter(unknown).filter_map(sku).collect()
}

/// `false` when the product was there with stock. The keys are the same in every run, so that a run that was cut off
/// between the two requests is finished by the next and doubles nothing.
pub(crate) fn add(inventory: &str, token: &str, product: &Value, quantity: i64) -> Result<bool> {
    let sku = product["sku"].as_str().context("a product has a sku")?;
    let stock = http::get(&format!("{inventory}/api/v1/stock/{sku}"), Some(token))?;
    if stock.status == 200 {
        let stock = stock.json(&[200])?;
        if ["available", "reserved", "shipped"].iter().any(|part| stock[part].as_i64().unwrap_or(0) > 0) {
            return Ok(false);
        }
    } else {
        let made = http::post(
            &format!("{inventory}/api/v1/products"),
            token,
            &format!("seed-product-{sku}"),
            product,
        )?;
        made.json(&[200, 201]).context("the product was refused")?;
    }
    let url = format!("{inventory}/api/v1/stock/{sku}/receipts");
    let received = http::post(&url, token, &format!("seed-receipt-{sku}"), &json!({"quantity": quantity}))?;
    received.json(&[200, 201, 202]).context("the receipt was refused")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_which_products_are_not_known_yet() {
        let refusal = json!({"error": {"code": "currency_mismatch", "details": [
            {"path": "lines[0].sku", "code": "currency_mismatch", "message": ""},
            {"path": "lines[2].sku", "code": "unknown_sku", "message": ""},
            {"path": "lines[4].sku", "code": "unknown_sku", "message": ""},
        ]}});
        assert_eq!(unknown_in(&refusal), ["TEAPOT", "CUP-LIMITED"]);
        assert!(unknown_in(&json!({})).is_empty());
    }
}
