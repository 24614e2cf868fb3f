//! The first three stories: stock and money decide what becomes of an order.
use anyhow::{Result, ensure};

use super::shop::{PRICE_MINOR, Shop, Stock, money};
use crate::say;

/// Pieces in stock at the beginning of each story.
const IN_STOCK: i64 = 10;

pub(super) fn confirmed(shop: &Shop) -> Result<()> {
    say::answer("\na) Stock and money suffice.");
    let sku = shop.product("TEA", IN_STOCK)?;
    let id = shop.order(&sku, 2, "tok_approve")?;
    let order = shop.ends(&id, "CONFIRMED", None)?;
    let total = order["total_minor"].as_i64().unwrap_or_default();
    ensure!(total == 2 * PRICE_MINOR, "the total is {}, not twice the price", money(total));
    shop.stock_becomes(&sku, Stock { available: IN_STOCK - 2, reserved: 0, shipped: 2 })?;
    shop.payment_becomes(&id, "captured")
}

pub(super) fn too_little_stock(shop: &Shop) -> Result<()> {
    say::answer("\nb) More is ordered than there is.");
    let sku = shop.product("CUP", IN_STOCK)?;
    let id = shop.order(&sku, IN_STOCK + 1, "tok_approve")?;
    shop.ends(&id, "REJECTED", Some("insufficient_stock"))?;
    shop.stock_becomes(&sku, Stock { available: IN_STOCK, reserved: 0, shipped: 0 })?;
    let payment = shop.payment(&id)?;
    ensure!(payment.status == 404, "a payment was attempted: {}", payment.text);
    say::answer("   payment: none was attempted");
    Ok(())
}

pub(super) fn declined(shop: &Shop) -> Result<()> {
    say::answer("\nc) The payment is declined.");
    let sku = shop.product("POT", IN_STOCK)?;
    let id = shop.order(&sku, 3, "tok_decline")?;
    shop.ends(&id, "REJECTED", Some("payment_declined"))?;
    shop.stock_becomes(&sku, Stock { available: IN_STOCK, reserved: 0, shipped: 0 })?;
    shop.payment_becomes(&id, "declined")
}
