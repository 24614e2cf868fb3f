//! Clients that hang up at any microsecond: what was acknowledged is there, nothing is there twice, nothing stays open.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::invariants;
use crate::journal::Accepted;
use crate::load;
use crate::shop::Shop;
use crate::system::System;

/// Placements whose clients hang up.
const PLACEMENTS: usize = 300;
/// Of them at a time.
const AT_ONCE: usize = 16;
/// Placements that are timed first, so that hang-ups fall into every part of a request.
const TIMED: usize = 40;
/// More than any request takes.
const PATIENT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_up_loses_nothing_and_doubles_nothing() {
    let system = System::start("e2e_hang_ups").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 100_000).await;
    // Each request has a connection of its own, which is closed with it.
    let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let timed: Vec<Attempt> = stream::iter(0..TIMED)
        .map(|_| attempt(&shop, &client, PATIENT))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut took: Vec<Duration> = timed.iter().map(|attempt| attempt.took).collect();
    took.sort();
    let usual = took[TIMED / 2];
    assert!(timed.iter().all(|attempt| attempt.acknowledged.is_some()));

    let mut dice = StdRng::seed_from_u64(load::seed());
    let waits: Vec<Duration> = (0..PLACEMENTS)
        .map(|_| Duration::from_micros(dice.random_range(0..2 * u64::try_from(usual.as_micros()).unwrap())))
        .collect();
    let attempts: Vec<Attempt> = stream::iter(waits)
        .map(|wait| attempt(&shop, &client, wait))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let acknowledged = attempts.iter().filter(|attempt| attempt.acknowledged.is_some()).count();
    println!(
        "{acknowledged} of {PLACEMENTS} were acknowledged before the client hung up, usually after {usual:?}"
    );
    assert!((1..PLACEMENTS).contains(&acknowledged), "some hung up, some did not: {acknowledged}");

    let mut accepted = Vec::new();
    let mut ids = BTreeMap::new();
    for attempt in timed.into_iter().chain(attempts) {
        let answer =
            load::placed(&shop.client, &system.orders.url, &shop.customer, &attempt.key, &attempt.request)
                .await;
        assert!(
            attempt.acknowledged.is_none_or(|first| first == answer),
            "{} is answered as it was",
            attempt.key
        );
        let order = Accepted::new(&shop.customer, &attempt.key, attempt.request, answer);
        assert!(ids.insert(order.id.clone(), order.key.clone()).is_none(), "{} twice", order.id);
        accepted.push(order);
    }
    let orders: i64 =
        sqlx::query_scalar("select count(*) from orders").fetch_one(&system.orders_db.pool).await.unwrap();
    assert_eq!(
        orders,
        i64::try_from(TIMED + PLACEMENTS).unwrap(),
        "one order per key, those of hang-ups included"
    );
    invariants::hold(&system, &accepted).await;
}

struct Attempt {
    key: String,
    request: Value,
    /// The answer, when it was read to its end before the client hung up.
    acknowledged: Option<Vec<u8>>,
    took: Duration,
}

/// Places an order and hangs up after `wait`, in whatever state the request is.
async fn attempt(shop: &Shop<'_>, client: &Client, wait: Duration) -> Attempt {
    let key = Uuid::now_v7().to_string();
    let request = json!({
        "lines": [{"sku": "tea", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"
    });
    let sending = async {
        let post =
            client.post(format!("{}/api/v1/orders", shop.system.orders.url)).bearer_auth(&shop.customer);
        let response = post.header("Idempotency-Key", &key).json(&request).send().await.unwrap();
        let status = response.status();
        let body = response.bytes().await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{}", String::from_utf8_lossy(&body));
        body.to_vec()
    };
    let started = Instant::now();
    let acknowledged = tokio::time::timeout(wait, sending).await.ok();
    Attempt { key, request, acknowledged, took: started.elapsed() }
}
