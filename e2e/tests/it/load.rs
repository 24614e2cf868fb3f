//! Customers who order all the time, in every mood, and try again until they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::journal::Accepted;
use crate::shop::Shop;
use crate::system::System;

/// Customers at a time.
const CUSTOMERS: u64 = 6;
/// Longest pause of a customer between two orders; half of it on average, so some 40 orders a second together.
const PAUSE_MS_MAX: u64 = 300;
/// Longest that one request is waited for before it is sent again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that a customer tries: several restarts of a debug build on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);
/// Pause between two tries.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// What is sold: (SKU, price, pieces); of the last there is too little.
pub(crate) const GOODS: [(&str, i64, i64); 4] =
    [("tea", 700, 100_000), ("mate", 1_250, 100_000), ("cocoa", 90, 100_000), ("rare", 9_999, 25)];
/// Moods of the payment provider, as often as they stand here.
const TOKENS: [&str; 10] = [
    "tok_approve",
    "tok_approve",
    "tok_approve",
    "tok_approve",
    "tok_decline",
    "tok_unknown",
    "tok_fail_1",
    "tok_timeout_once",
    "tok_slow_40",
    "tok_approve",
];

/// The seed of a test's dice: `WAYBILL_E2E_SEED`, or a new one; printed, so that a failure's output has it.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("WAYBILL_E2E_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("again with WAYBILL_E2E_SEED={seed}");
    seed
}

/// Puts the goods on the shelf.
pub(crate) async fn stock_up(shop: &Shop<'_>) {
    for (sku, price, pieces) in GOODS {
        shop.product(sku, price, pieces).await;
    }
}

/// Customers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    customers: JoinSet<Vec<Accepted>>,
}

impl Load {
    /// Starts; [`stock_up`] comes first.
    pub(crate) fn start(system: &System, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut customers = JoinSet::new();
        for number in 0..CUSTOMERS {
            let customer = Customer {
                client: Client::builder().timeout(REQUEST_TIMEOUT).build().unwrap(),
                url: system.orders.url.clone(),
                token: system.tokens.token(&Uuid::now_v7().to_string(), "customer"),
                dice: StdRng::seed_from_u64(seed.wrapping_add(number)),
            };
            customers.spawn(customer.order_until(Arc::clone(&stop)));
        }
        Self { stop, customers }
    }

    /// Ends; every order under way gets its answer first.
    pub(crate) async fn stop(self) -> Vec<Accepted> {
        self.stop.store(true, Ordering::Release);
        let accepted: Vec<Accepted> = self.customers.join_all().await.into_iter().flatten().collect();
        println!("{} orders were accepted", accepted.len());
        accepted
    }
}

struct Customer {
    client: Client,
    url: String,
    token: String,
    dice: StdRng,
}

impl Customer {
    async fn order_until(mut self, stop: Arc<AtomicBool>) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        while !stop.load(Ordering::Acquire) {
            accepted.push(self.order().await);
            self.pause(PAUSE_MS_MAX).await;
        }
        accepted
    }

    /// One order, now and then cancelled at any point of its life.
    async fn order(&mut self) -> Accepted {
        let request = self.wish();
        let key = Uuid::now_v7().to_string();
        let (token, url) = (self.token.clone(), self.url.clone());
        let answer = placed(&self.client, &url, &token, &key, &request).await;
        let mut order = Accepted::new(&token, &key, request, answer);
        if self.dice.random_ratio(1, 5) {
            self.pause(PAUSE_MS_MAX).await;
            order.cancelled = Some(cancelled(&self.client, &url, &token, &order.id).await);
        }
        order
    }

    fn wish(&mut self) -> Value {
        let first = self.dice.random_range(0..GOODS.len());
        let mut skus = vec![GOODS[first].0];
        if self.dice.random_bool(0.5) {
            skus.push(GOODS[(first + 1) % GOODS.len()].0);
        }
        let lines = skus.iter().map(|sku| json!({"sku": sku, "quantity": self.dice.random_range(1..4)}));
        let lines: Vec<Value> = lines.collect();
        let token = TOKENS[self.dice.random_range(0..TOKENS.len())];
        json!({"lines": lines, "currency": "EUR", "payment_token": token})
    }

    async fn pause(&mut self, ms_max: u64) {
        let pause = self.dice.random_range(0..=ms_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Places an order, again and again under the same key until it is accepted; returns the answer's bytes.
pub(crate) async fn placed(client: &Client, url: &str, token: &str, key: &str, request: &Value) -> Vec<u8> {
    let send = || {
        let post = client.post(format!("{url}/api/v1/orders")).bearer_auth(token);
        post.header("Idempotency-Key", key).json(request)
    };
    let (status, body) = answered(send).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{}", String::from_utf8_lossy(&body));
    body
}

/// Cancels until it is answered: accepted, or refused because the order was rejected.
async fn cancelled(client: &Client, url: &str, token: &str, id: &str) -> bool {
    let (status, body) =
        answered(|| client.post(format!("{url}/api/v1/orders/{id}/cancel")).bearer_auth(token)).await;
    let text = String::from_utf8_lossy(&body);
    let refused = status == StatusCode::CONFLICT && text.contains("order_not_cancellable");
    assert!(refused || status.is_success(), "cancel of {id}: {status} {text}");
    !refused
}

/// Sends until there is a final answer: silence is none, nor is "not now" (503, and 409 while another request is at the
/// same thing), which says when to come again. Nothing that is done to the system is a reason for a 500.
pub(crate) async fn answered(send: impl Fn() -> reqwest::RequestBuilder) -> (StatusCode, Vec<u8>) {
    let started = Instant::now();
    loop {
        let last = match send().send().await {
            Ok(response) => {
                let status = response.status();
                let retry_after = response.headers().contains_key("Retry-After");
                let body = response.bytes().await.map(|bytes| bytes.to_vec());
                match body {
                    Ok(body) if !is_for_now(status, retry_after) => return (status, body),
                    Ok(body) => format!("{status} {}", String::from_utf8_lossy(&body)),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        assert!(
            started.elapsed() < ANSWER_TIMEOUT,
            "no answer within {ANSWER_TIMEOUT:?}; the last was {last}"
        );
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn is_for_now(status: StatusCode, retry_after: bool) -> bool {
    retry_after && [StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT].contains(&status)
}
