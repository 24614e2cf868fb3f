//! What customers and staff do over HTTP, with the waits that the stories need.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::instance::Instance;
use crate::keys;
use crate::random;
use crate::say;
use crate::state::State;
use crate::token::{self, Role};

/// How long a story's tokens live, in seconds.
const TOKEN_TTL_S: u64 = 3_600;
/// How long anything may take, in seconds: a killed relay's lease has to run out first.
const END_TIMEOUT_S: u64 = 120;
/// How often a wait looks, in milliseconds.
const POLL_INTERVAL_MS: u64 = 50;
/// The price of everything in the stories, in cents.
pub(super) const PRICE_MINOR: i64 = 1_250;

/// A customer and an admin of the running system; every run has products of its own.
pub(super) struct Shop {
    pub(super) instance: Instance,
    orders: String,
    inventory: String,
    payments: String,
    customer: String,
    admin: String,
    /// Ends the names of this run's products.
    run: String,
}

/// Where the pieces of a product are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stock {
    pub(super) available: i64,
    pub(super) reserved: i64,
    pub(super) shipped: i64,
}

impl std::fmt::Display for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} available, {} reserved, {} shipped", self.available, self.reserved, self.shipped)
    }
}

impl Shop {
    pub(super) fn open(instance: &Instance) -> Result<Self> {
        let state = State::read(instance)?.context("nothing runs: start it with `cargo xtask up`")?;
        let url = |name: &str| {
            let url = state.services.get(name).cloned();
            url.with_context(|| format!("{name} does not run: this system was started with --servers"))
        };
        let key = keys::ensure(instance)?;
        Ok(Self {
            instance: instance.clone(),
            orders: url("orders")?,
            inventory: url("inventory")?,
            payments: url("payments")?,
            customer: token::sign(&key, &token::random_uuid(), Role::Customer, TOKEN_TTL_S)?,
            admin: token::sign(&key, "xtask-demo", Role::Admin, TOKEN_TTL_S)?,
            run: random::hex::<3>(),
        })
    }

    /// Adds a product with stock; returns its SKU once orders knows its price.
    pub(super) fn product(&self, name: &str, quantity: i64) -> Result<String> {
        let sku = format!("DEMO-{name}-{}", self.run);
        let product = json!({"sku": sku, "name": format!("Demo {name}"), "unit_price_minor": PRICE_MINOR, "currency": "EUR"});
        self.admin_post("/api/v1/products", &format!("demo-product-{sku}"), &product)?;
        let path = format!("/api/v1/stock/{sku}/receipts");
        self.admin_post(&path, &format!("demo-receipt-{sku}"), &json!({"quantity": quantity}))?;
        say::answer(&format!("   stocked {quantity} of {sku} at {}", money(PRICE_MINOR)));
        Ok(sku)
    }

    fn admin_post(&self, path: &str, key: &str, body: &Value) -> Result<()> {
        let answer = http::post(&format!("{}{path}", self.inventory), &self.admin, key, body)?;
        answer.json(&[200, 201]).with_context(|| format!("inventory refused POST {path}")).map(drop)
    }

    /// Places an order and returns its id. A price that has not reached orders yet is waited for.
    pub(super) fn order(&self, sku: &str, quantity: i64, payment_token: &str) -> Result<String> {
        let placed = eventually("orders to know the price", || {
            let answer = self.place(sku, quantity, payment_token, &token::random_uuid())?;
            Ok((!answer.text.contains("unknown_sku")).then_some(answer))
        })?;
        let order = placed.json(&[202]).context("orders refused the order")?;
        let id = order["id"].as_str().context("an order has an id")?.to_owned();
        say::answer(&format!(
            "   placed {id}: {quantity} of {sku}, paid with {payment_token}: {}",
            order["status"]
        ));
        Ok(id)
    }

    /// One POST, whatever comes of it.
    pub(super) fn place(&self, sku: &str, quantity: i64, payment_token: &str, key: &str) -> Result<Answer> {
        let lines = json!([{"sku": sku, "quantity": quantity}]);
        let body = json!({"lines": lines, "currency": "EUR", "payment_token": payment_token});
        http::post(&format!("{}/api/v1/orders", self.orders), &self.customer, key, &body)
    }

    /// Waits until the order has ended; fails when it ends otherwise than told.
    pub(super) fn ends(&self, id: &str, status: &str, reason: Option<&str>) -> Result<Value> {
        let began = Instant::now();
        let order = eventually("the order to end", || {
            Ok(Some(self.read(id)?).filter(|order| order["status"] != "PENDING"))
        })?;
        let told = order["reason"].as_str();
        ensure!(
            order["status"] == status && told == reason,
            "the order ended as {} {}",
            order["status"],
            order["reason"]
        );
        let because = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        say::answer(&format!("   {status}{because} after {} ms", began.elapsed().as_millis()));
        Ok(order)
    }

    pub(super) fn read(&self, id: &str) -> Result<Value> {
        http::get(&format!("{}/api/v1/orders/{id}", self.orders), Some(&self.customer))?.json(&[200])
    }

    /// Waits until the stock is as told.
    pub(super) fn stock_becomes(&self, sku: &str, wanted: Stock) -> Result<()> {
        let url = format!("{}/api/v1/stock/{sku}", self.inventory);
        eventually(&format!("the stock of {sku} to be {wanted}"), || {
            let stock = http::get(&url, Some(&self.admin))?.json(&[200])?;
            let count = |part: &str| stock[part].as_i64().with_context(|| format!("stock has no `{part}`"));
            let now = Stock {
                available: count("available")?,
                reserved: count("reserved")?,
                shipped: count("shipped")?,
            };
            Ok((now == wanted).then_some(()))
        })?;
        say::answer(&format!("   stock: {wanted}"));
        Ok(())
    }

    /// Waits until the order's payment has this status.
    pub(super) fn payment_becomes(&self, id: &str, status: &str) -> Result<()> {
        eventually(&format!("the payment to be {status}"), || {
            let answer = self.payment(id)?;
            Ok((answer.status == 200 && answer.json(&[200])?["status"] == status).then_some(()))
        })?;
        say::answer(&format!("   payment: {status}"));
        Ok(())
    }

    /// Whether payments has heard of the order.
    pub(super) fn payment(&self, id: &str) -> Result<Answer> {
        http::get(&format!("{}/api/v1/payments/{id}", self.payments), Some(&self.customer))
    }
}

/// Asks until there is an answer, at most two minutes.
pub(super) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if began.elapsed() > Duration::from_secs(END_TIMEOUT_S) {
            bail!("waited {END_TIMEOUT_S} s in vain for {what}: `cargo xtask logs` may tell why");
        }
        std::thread::sleep(Duration::from_millis(POLL_INTERVAL_MS));
    }
}

/// Cents as euros.
pub(super) fn money(minor: i64) -> String {
    format!("{}.{:02} EUR", minor / 100, minor % 100)
}
