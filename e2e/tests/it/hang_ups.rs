//! Clients that hang up at any microsecond: what was acknowledged is there, nothing is there twice, nothing stays open.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::invariants::{self, count_in_all};
use crate::journal::Accepted;
use crate::load;
use crate::shop::Shop;
use crate::system::System;

/// Commands whose clients hang up before they are answered.
const HANG_UPS: usize = 500;
/// Commands at most; those that are answered before the client hangs up are among them.
const COMMANDS_MAX: usize = 20 * HANG_UPS;
/// Of them at a time.
const AT_ONCE: usize = 16;
/// Placements that are timed first, so that hang-ups fall into every part of a request. These orders are cancelled later.
const TIMED: usize = 80;
/// More than any request takes.
const PATIENT: Duration = Duration::from_secs(60);
/// Pause between two looks at the sessions, and before a command that was sent away is sent again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_up_loses_nothing_and_doubles_nothing() {
    let system = System::start("e2e_hang_ups").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 100_000).await;
    let desk = Desk::new(&shop);
    let timed: Vec<Attempt> = stream::iter(0..TIMED)
        .map(|_| desk.attempt(Command::Place, PATIENT))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut took: Vec<Duration> = timed.iter().map(|attempt| attempt.took).collect();
    took.sort();
    let usual = took[TIMED / 2];
    let placed: Vec<String> = timed.iter().map(|attempt| attempt.order_id().expect("an answer")).collect();

    let attempts = tokio::select! {
        attempts = hang_ups(&desk, &placed, usual) => attempts,
        never = nobody_idles(&system) => match never {},
    };
    let mut unanswered: BTreeMap<&str, usize> = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.acknowledged.is_none()) {
        *unanswered.entry(attempt.command.name()).or_default() += 1;
    }
    println!("of {} commands these were hung up on, usually after {usual:?}: {unanswered:?}", attempts.len());
    assert!(unanswered.values().sum::<usize>() >= HANG_UPS, "{unanswered:?}");
    assert!(unanswered.len() == 4 && unanswered.values().all(|count| *count > 10), "{unanswered:?}");

    let accepted = asked_again(&desk, timed.into_iter().chain(attempts).collect()).await;
    let orders: i64 =
        sqlx::query_scalar("select count(*) from orders").fetch_one(&system.orders_db.pool).await.unwrap();
    assert_eq!(orders, accepted.len() as i64, "one order per key, those of hang-ups included");
    invariants::hold(&system, &accepted).await;
}

/// Commands of every kind until enough of them were hung up on.
async fn hang_ups(desk: &Desk<'_>, placed: &[String], usual: Duration) -> Vec<Attempt> {
    let mut dice = StdRng::seed_from_u64(load::seed());
    let longest = u64::try_from(usual.as_micros()).unwrap() * 3 / 2;
    let unanswered = AtomicUsize::new(0);
    let drawn = (0..COMMANDS_MAX).map_while(|number| {
        (unanswered.load(Ordering::Relaxed) < HANG_UPS).then(|| {
            let command = match dice.random_range(0..4) {
                0 => Command::Place,
                1 => Command::Cancel(placed[dice.random_range(0..placed.len())].clone()),
                2 => Command::Receive,
                _ => Command::Price(1_000 + number),
            };
            (command, Duration::from_micros(dice.random_range(0..longest)))
        })
    });
    let attempt = async |(command, wait)| {
        let attempt = desk.attempt(command, wait).await;
        if attempt.acknowledged.is_none() {
            unanswered.fetch_add(1, Ordering::Relaxed);
        }
        attempt
    };
    stream::iter(drawn).map(attempt).buffer_unordered(AT_ONCE).collect().await
}

/// Looks all the time: a transaction that a hang-up left open is reaped by the server after ten seconds, and would be gone
/// when the load is over. Half of that is longer than any handler pauses between two statements, also on a busy machine.
async fn nobody_idles(system: &System) -> Infallible {
    let idle = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and state like 'idle in transaction%' and state_change < clock_timestamp() - interval '5 seconds'";
    loop {
        assert_eq!(count_in_all(system, idle).await, 0, "sessions left idle in a transaction");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Sends every command once more, to its end: nothing acknowledged is lost, and nothing is done twice. The orders.
async fn asked_again(desk: &Desk<'_>, attempts: Vec<Attempt>) -> Vec<Accepted> {
    let (mut accepted, mut cancelled, mut ids) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let (mut received, mut priced) = (1, 0);
    for Attempt { command, key, acknowledged, .. } in attempts {
        let (status, answer) = load::answered(|| desk.request(&command, &key)).await;
        let told = String::from_utf8_lossy(&answer);
        if !matches!(command, Command::Cancel(_)) {
            assert!(acknowledged.is_none_or(|first| first == answer), "{key} is answered as it was: {told}");
        }
        match command {
            Command::Place => {
                assert_eq!(status, StatusCode::ACCEPTED, "{told}");
                let order = Accepted::new(&desk.shop.customer, &key, desk.order(), answer);
                assert!(ids.insert(order.id.clone(), key).is_none(), "{} twice", order.id);
                accepted.push(order);
            }
            Command::Cancel(id) => {
                assert!(status.is_success(), "cancel of {id}: {status} {told}");
                cancelled.insert(id, true);
            }
            Command::Receive => {
                assert_eq!(status, StatusCode::CREATED, "{told}");
                received += 1;
            }
            Command::Price(_) => {
                assert_eq!(status, StatusCode::OK, "{told}");
                priced += 1;
            }
        }
    }
    for order in &mut accepted {
        order.cancelled = cancelled.get(&order.id).copied();
    }
    for (what, done, expected) in [
        ("receipts", "select count(*) from stock_ledger where kind = 'receive'", received),
        ("prices", "select count(*) from outbox where headers->>'ce_type' = 'ProductPriceChanged'", priced),
    ] {
        let done: i64 =
            sqlx::query_scalar(done).fetch_one(&desk.shop.system.inventory_db.pool).await.unwrap();
        assert_eq!(done, expected, "{what}: one for each key");
    }
    accepted
}

/// What a client asks for.
enum Command {
    Place,
    Cancel(String),
    Receive,
    /// Each to a price that no other command asks for: every one of them changes something.
    Price(usize),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Cancel(_) => "cancel",
            Self::Receive => "receive",
            Self::Price(_) => "price",
        }
    }
}

struct Attempt {
    command: Command,
    key: String,
    /// The answer, when it was read to its end before the client hung up.
    acknowledged: Option<Vec<u8>>,
    took: Duration,
}

impl Attempt {
    fn order_id(&self) -> Option<String> {
        let order: Value = serde_json::from_slice(self.acknowledged.as_ref()?).unwrap();
        order["id"].as_str().map(str::to_owned)
    }
}

/// Where clients call from.
struct Desk<'a> {
    shop: &'a Shop<'a>,
    staff: String,
    /// Each request has a connection of its own, which is closed with it.
    client: Client,
}

impl<'a> Desk<'a> {
    fn new(shop: &'a Shop<'a>) -> Self {
        let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self { shop, staff: shop.system.tokens.token("staff", "admin"), client }
    }

    fn order(&self) -> Value {
        json!({"lines": [{"sku": "tea", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"})
    }

    fn request(&self, command: &Command, key: &str) -> RequestBuilder {
        let System { orders, inventory, .. } = self.shop.system;
        let (method, url, token, body) = match command {
            Command::Place => {
                (Method::POST, format!("{}/api/v1/orders", orders.url), &self.shop.customer, self.order())
            }
            Command::Cancel(id) => {
                let url = format!("{}/api/v1/orders/{id}/cancel", orders.url);
                return self.client.post(url).bearer_auth(&self.shop.customer);
            }
            Command::Receive => {
                let url = format!("{}/api/v1/stock/tea/receipts", inventory.url);
                (Method::POST, url, &self.staff, json!({"quantity": 1}))
            }
            Command::Price(price) => {
                let url = format!("{}/api/v1/products/tea/price", inventory.url);
                (Method::PUT, url, &self.staff, json!({"unit_price_minor": price, "currency": "EUR"}))
            }
        };
        let request = self.client.request(method, url).bearer_auth(token);
        request.header("Idempotency-Key", key).json(&body)
    }

    /// Asks, and hangs up after `wait`, in whatever state the request is.
    async fn attempt(&self, command: Command, wait: Duration) -> Attempt {
        let key = Uuid::now_v7().to_string();
        let sending = async {
            loop {
                let response = self.request(&command, &key).send().await.unwrap();
                let (status, later) = (response.status(), response.headers().contains_key("Retry-After"));
                let body = response.bytes().await.unwrap();
                if status.is_success() {
                    return body.to_vec();
                }
                // Many commands want the same row; who has waited too long for it is told to come again.
                assert!(later, "{}: {status} {}", command.name(), String::from_utf8_lossy(&body));
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        let started = Instant::now();
        let acknowledged = tokio::time::timeout(wait, sending).await.ok();
        Attempt { acknowledged, took: started.elapsed(), command, key }
    }
}
