//! A small catalogue through the real HTTP API: what is there already is left alone.
use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::http;
use crate::keys::Key;
use crate::say;
use crate::servers::Context;
use crate::token::{self, Role};

/// How long the seeding token lives, in seconds.
const TOKEN_TTL_S: u64 = 300;
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
    Ok(())
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
