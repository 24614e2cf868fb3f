//! Idempotency keys over several processes of orders, dying processes, and more requests than connections.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;
use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::journal::Accepted;
use crate::load;
use crate::shop::Shop;
use crate::system::{Service, System};

/// Longest wait for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);
/// Requests with one key at the same time.
const AT_ONCE: usize = 50;
/// Requests at the same time for two connections.
const FLOOD: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_one_order_whoever_answers_and_whatever_dies() {
    let mut system = System::start("e2e_keys").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 1_000).await;
    let mut second = system.member(Service::Orders);
    second.wait_ready(STEP_TIMEOUT).await;
    let (client, customer, key) = (Client::new(), shop.customer.clone(), "one-key");
    let mut accepted = Vec::new();

    // Two processes, fifty requests, one order, the same bytes.
    let urls = [system.orders.url.clone(), second.url.clone()];
    let requests =
        (0..AT_ONCE).map(|number| load::placed(&client, &urls[number % 2], &customer, key, wish()));
    let answers: BTreeSet<Vec<u8>> = join_all(requests).await.into_iter().collect();
    assert_eq!(answers.len(), 1, "{AT_ONCE} requests with one key are answered alike");
    accepted.extend(answers.into_iter().map(|answer| Accepted::new(&customer, key, wish().clone(), answer)));

    // Another customer's key of the same name is another key.
    let other = system.tokens.token(&Uuid::now_v7().to_string(), "customer");
    let answer = load::placed(&client, &urls[0], &other, key, wish()).await;
    accepted.push(Accepted::new(&other, key, wish().clone(), answer));

    // The process dies in the middle of the key's first request: the key can be used.
    let key = "its-process-died";
    let mut blocker = PgConnection::connect(&system.orders_db.url).await.unwrap();
    let mut lock = blocker.begin().await.unwrap();
    sqlx::query("lock table orders in exclusive mode").execute(&mut *lock).await.unwrap();
    let first = tokio::spawn({
        let post = client.post(format!("{}/api/v1/orders", urls[0])).bearer_auth(&customer);
        post.header("Idempotency-Key", key).json(wish()).send()
    });
    waits_for_lock(&system).await;
    system.orders.kill9().await;
    lock.rollback().await.unwrap();
    assert!(first.await.unwrap().is_err(), "nobody was told anything");
    let answer = load::placed(&client, &urls[1], &customer, key, wish()).await;
    accepted.push(Accepted::new(&customer, key, wish().clone(), answer));
    system.orders.restart();
    system.all_ready().await;
    invariants::hold(&system, &accepted).await;
    let orders: i64 =
        sqlx::query_scalar("select count(*) from orders").fetch_one(&system.orders_db.pool).await.unwrap();
    assert_eq!(orders, 3);
}

fn wish() -> &'static Value {
    static WISH: std::sync::LazyLock<Value> = std::sync::LazyLock::new(
        || json!({"lines": [{"sku": "tea", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"}),
    );
    &WISH
}

async fn waits_for_lock(system: &System) {
    let question = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and query like '%idempotency_claim%'";
    eventually_named("the request in the middle of its statement", STEP_TIMEOUT, async || {
        let waiting: i64 = sqlx::query_scalar(question).fetch_one(&system.orders_db.pool).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_connections_are_told_to_come_again_and_leave_nothing() {
    let system = System::start_with("e2e_flood", &[("WAYBILL_DATABASE_WRITES_MAX", "2")]).await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 1_000).await;
    // Nothing gets through while the table is locked: the pool is used up, and those that wait are turned away.
    let mut blocker = PgConnection::connect(&system.orders_db.url).await.unwrap();
    let mut lock = blocker.begin().await.unwrap();
    sqlx::query("lock table orders in exclusive mode").execute(&mut *lock).await.unwrap();
    let keys: Vec<String> = (0..FLOOD).map(|_| Uuid::now_v7().to_string()).collect();
    let attempt = async |key: String| {
        let post =
            shop.client.post(format!("{}/api/v1/orders", system.orders.url)).bearer_auth(&shop.customer);
        let answer = post.header("Idempotency-Key", &key).json(wish()).send().await.unwrap();
        (key, answer.status(), answer.headers().contains_key("Retry-After"))
    };
    let answers: Vec<_> = stream::iter(keys).map(attempt).buffer_unordered(FLOOD).collect().await;
    for (key, status, retry_after) in &answers {
        let for_now = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT].contains(status);
        assert!(for_now && *retry_after, "{key}: {status}, Retry-After {retry_after}");
    }
    let turned_away = answers.iter().filter(|(_, status, _)| *status == StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        turned_away.count() > 0,
        "more than two wait, longer than a connection is waited for: {answers:?}"
    );
    lock.rollback().await.unwrap();
    let rows: i64 =
        sqlx::query_scalar("select (select count(*) from orders) + (select count(*) from idempotency_keys)")
            .fetch_one(&system.orders_db.pool)
            .await
            .unwrap();
    assert_eq!(rows, 0, "who is told to come again has left no row");
    let again = async |(key, ..): (String, StatusCode, bool)| {
        let answer = load::placed(&shop.client, &system.orders.url, &shop.customer, &key, wish()).await;
        Accepted::new(&shop.customer, &key, wish().clone(), answer)
    };
    let accepted: Vec<Accepted> = stream::iter(answers).map(again).buffer_unordered(16).collect().await;
    invariants::hold(&system, &accepted).await;
}
