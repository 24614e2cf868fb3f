//! A catalogue with stock, customers with tokens, and orders at random.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rand::Rng as _;
use rand::seq::index;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;
use waybill_testkit::Tokens;

use crate::arguments::Arguments;
use crate::client::{Answer, Client, Post};
use crate::journal::{Accepted, Journal, now_us};
use crate::system::System;

/// Pieces of each product: more than any run orders.
pub const STOCK_PIECES: i64 = 1_000_000;
/// Longest wait until orders has heard of every price.
const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is asked.
const CATALOGUE_POLL: Duration = Duration::from_millis(100);
/// Products are made this many at a time.
const SEED_AT_ONCE: usize = 8;

/// Who places orders, for what, where.
#[derive(Debug)]
pub struct Shop {
    client: Client,
    customers: Vec<String>,
    skus: Vec<String>,
    lines: usize,
}

#[derive(Deserialize)]
struct OrderAnswer {
    id: Uuid,
}

impl Shop {
    /// Makes the catalogue and its stock, and waits until orders knows all prices.
    ///
    /// # Errors
    /// When a product is refused or the prices do not arrive.
    pub async fn open(system: &System, arguments: &Arguments) -> Result<Self> {
        let skus: Vec<String> = (0..arguments.skus).map(|number| format!("SKU-{number:05}")).collect();
        seed(system, &skus).await?;
        catalogue_known(system, skus.len()).await?;
        Self::at(&system.orders.process.url, &system.tokens, skus, arguments)
    }

    /// A shop whose orders are sent to `url`, for products that are there already.
    ///
    /// # Errors
    /// When there are more lines than this machine can count.
    pub fn at(url: &str, tokens: &Tokens, skus: Vec<String>, arguments: &Arguments) -> Result<Self> {
        let customer = |_| tokens.token(&Uuid::now_v7().to_string(), "customer");
        let customers = (0..arguments.customers).map(customer).collect();
        let lines = usize::try_from(arguments.lines).context("a number of lines")?.min(skus.len());
        Ok(Self { client: Client::new(url), customers, skus, lines })
    }

    /// The same shop after orders was started again elsewhere.
    #[must_use]
    pub fn moved(self, system: &System) -> Self {
        Self { client: Client::new(&system.orders.process.url), ..self }
    }

    /// Sends one order and enters what came of it into the journal; `true`: it was accepted. `intended` is when it was to
    /// be sent: the time is taken from there, whatever held the client up since.
    pub async fn place(&self, intended: Instant, journal: &Journal) -> Option<Accepted> {
        match self.try_place(intended).await {
            Ok(accepted) => {
                journal.accept(accepted);
                Some(accepted)
            }
            Err(error) => {
                journal.refuse(format!("{error:#}"));
                None
            }
        }
    }

    async fn try_place(&self, intended: Instant) -> Result<Accepted> {
        let (token, body) = self.draw();
        let key = Uuid::now_v7().to_string();
        let post = Post { path: "/api/v1/orders", token, key: &key, body };
        let Answer { status, body } = self.client.post(post).await?;
        let at_us = now_us();
        let place_us = u64::try_from(intended.elapsed().as_micros()).unwrap_or(u64::MAX);
        ensure!(status == StatusCode::ACCEPTED, "{status}: {}", String::from_utf8_lossy(&body));
        let OrderAnswer { id } = serde_json::from_slice(&body).context("the answer to an order")?;
        Ok(Accepted { id, at_us, place_us })
    }

    /// A customer and what they order.
    fn draw(&self) -> (&str, Bytes) {
        let mut rng = rand::rng();
        let customer = &self.customers[rng.random_range(0..self.customers.len())];
        let chosen = index::sample(&mut rng, self.skus.len(), self.lines).into_iter();
        // Names that need no escape: written by hand, which costs less than half of a JSON value.
        let lines: Vec<_> =
            chosen.map(|at| format!(r#"{{"sku":"{}","quantity":1}}"#, self.skus[at])).collect();
        let lines = lines.join(",");
        let body = format!(r#"{{"lines":[{lines}],"currency":"EUR","payment_token":"tok_approve"}}"#);
        (customer, body.into())
    }
}

async fn seed(system: &System, skus: &[String]) -> Result<()> {
    let client = std::sync::Arc::new(Client::new(&system.inventory.process.url));
    let admin = system.tokens.token("staff", "admin");
    let mut making = JoinSet::new();
    for (place, sku) in skus.iter().cloned().enumerate() {
        if making.len() >= SEED_AT_ONCE {
            finished(making.join_next().await)?;
        }
        let (client, admin) = (std::sync::Arc::clone(&client), admin.clone());
        let price = 100 + i64::try_from(place % 900).context("a price")?;
        making.spawn(async move { product(&client, &admin, &sku, price).await });
    }
    while let Some(made) = making.join_next().await {
        finished(Some(made))?;
    }
    Ok(())
}

fn finished(made: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    made.map_or(Ok(()), |made| made.context("making a product")?)
}

async fn product(client: &Client, admin: &str, sku: &str, price: i64) -> Result<()> {
    let product =
        json!({"sku": sku, "name": format!("The {sku}"), "unit_price_minor": price, "currency": "EUR"});
    created(client, admin, "/api/v1/products", &product).await?;
    let receipt = json!({"quantity": STOCK_PIECES});
    created(client, admin, &format!("/api/v1/stock/{sku}/receipts"), &receipt).await
}

async fn created(client: &Client, token: &str, path: &str, body: &serde_json::Value) -> Result<()> {
    let key = Uuid::now_v7().to_string();
    let Answer { status, body } =
        client.post(Post { path, token, key: &key, body: body.to_string().into() }).await?;
    ensure!(status == StatusCode::CREATED, "POST {path}: {status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

async fn catalogue_known(system: &System, count: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let known: i64 = sqlx::query_scalar("select count(*) from catalogue")
            .fetch_one(&system.orders.database.pool)
            .await
            .context("asking for the catalogue")?;
        if usize::try_from(known).is_ok_and(|known| known >= count) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < CATALOGUE_TIMEOUT,
            "orders knows {known} of {count} prices after {CATALOGUE_TIMEOUT:?}; the relay says:\n{}",
            system.relay.output()
        );
        tokio::time::sleep(CATALOGUE_POLL).await;
    }
}
