//! Postgres and Kafka killed and restarted under load; Kafka away until orders are turned away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;
use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::journal::Accepted;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::{Special, System};

/// Few connections, so that the test's own small server has enough for all; a backlog that is soon full.
const SETTINGS: [(&str, &str); 6] = [
    ("WAYBILL_DATABASE_WRITES_MAX", "3"),
    ("WAYBILL_DATABASE_READS_MAX", "2"),
    ("WAYBILL_DATABASE_BACKGROUND_MAX", "4"),
    ("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "60"),
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "15000"),
    // What is under way is at its last attempt.
    ("WAYBILL_ORDERS_STEP_ATTEMPTS_MAX", "1"),
];
/// Longer than a saga waits for a step.
const AWAY: Duration = Duration::from_secs(30);
/// Orders comes in between two restarts.
const PAUSE: Duration = Duration::from_millis(800);
/// Placements until the backlog must have been seen to be full: it is looked at once a second.
const PLACEMENTS_MAX: usize = 3_000;
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Orders that are on their way when Kafka goes, and their payment: the provider answers when it is away.
const HALF_WAY: i64 = 8;
const SLOW_TOKEN: &str = "tok_slow_9000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_may_be_restarted_under_load_and_kafka_may_be_away() {
    let mut system = System::start_special("e2e_servers", &SETTINGS, Special::own_servers().await).await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    restarts(&mut system).await;
    system.all_ready().await;
    invariants::hold(&system, &load.stop().await).await;

    let half_way = half_way(&system).await;
    system.servers().kafka.stop(0).await;
    let began = Instant::now();
    let (mut accepted, refused) = until_full(&system, &half_way).await;
    reads_stay_up(&system, &accepted).await;
    // Who was accepted before it was full hears so again.
    accepted.last().unwrap().answered_the_same(&reqwest::Client::new(), &system.orders.url).await;
    tokio::time::sleep(AWAY.saturating_sub(began.elapsed())).await;
    no_deadline_fired(&system, &accepted).await;
    the_last_call_is_out(&system, &half_way).await;
    system.servers().kafka.start_again(0);
    system.servers().kafka.wait_ready(1).await;
    system.all_ready().await;
    // The same request under the same key, when there is room again.
    let shop = Shop::new(&system);
    let answer = load::placed(&shop.client, &system.orders.url, &refused.0, &refused.1, &wish()).await;
    accepted.push(Accepted::new(&refused.0, &refused.1, wish(), answer));
    let accepted = [half_way, accepted].concat();
    invariants::hold(&system, &accepted).await;
    nothing_timed_out(&system, &accepted).await;
    oldest_first(&system, &accepted).await;
}

async fn restarts(system: &mut System) {
    for killed in [true, false] {
        tokio::time::sleep(PAUSE).await;
        let postgres = &mut system.servers().postgres;
        if killed {
            postgres.kill9().await
        } else {
            postgres.stop().await
        }
        postgres.start_again().await;
        tokio::time::sleep(PAUSE).await;
        let kafka = &mut system.servers().kafka;
        if killed {
            kafka.kill9(0).await
        } else {
            kafka.stop(0).await
        }
        kafka.start_again(0);
        kafka.wait_ready(1).await;
    }
    tokio::time::sleep(PAUSE).await;
}

fn wish() -> serde_json::Value {
    json!({"lines": [{"sku": "tea", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"})
}

/// Orders whose payment is being authorized: the command is published, its answer will find Kafka away.
async fn half_way(system: &System) -> Vec<Accepted> {
    let shop = Shop::new(system);
    for _ in 0..HALF_WAY {
        shop.order(&[("tea", 1)], SLOW_TOKEN).await;
    }
    eventually_named("the provider to be asked", READ_TIMEOUT, async || {
        let asked = "select count(*) from payments where state = 'authorizing'";
        let asked: i64 = sqlx::query_scalar(asked).fetch_one(&system.payments_db.pool).await.unwrap();
        (asked == HALF_WAY).then_some(())
    })
    .await;
    shop.accepted()
}

/// Places orders until one is turned away, beside those that are under way; returns those before it in their order, and the customer and key of that one.
async fn until_full(system: &System, under_way: &[Accepted]) -> (Vec<Accepted>, (String, String)) {
    let shop = Shop::new(system);
    let mut accepted = Vec::new();
    for _ in 0..PLACEMENTS_MAX {
        let key = Uuid::now_v7().to_string();
        let post = shop.client.post(format!("{}/api/v1/orders", system.orders.url));
        let post = post.bearer_auth(&shop.customer).header("Idempotency-Key", &key).json(&wish());
        let answer = post.send().await.unwrap();
        let (status, retry_after) = (answer.status(), answer.headers().contains_key("Retry-After"));
        let body = answer.bytes().await.unwrap().to_vec();
        if status == StatusCode::ACCEPTED {
            accepted.push(Accepted::new(&shop.customer, &key, wish(), body));
            continue;
        }
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        assert!(retry_after && text.contains("outbox_full"), "{text}");
        let rows: (i64, i64) = sqlx::query_as(
            "select (select count(*) from idempotency_keys where key = $1),
                    (select count(*) from orders where id <> all($2::uuid[]) and status = 'PENDING')",
        )
        .bind(&key)
        .bind(ids(under_way.iter().chain(&accepted)))
        .fetch_one(&system.orders_db.pool)
        .await
        .unwrap();
        assert_eq!(rows, (0, 0), "who is turned away has left no row");
        println!("turned away after {} orders", accepted.len());
        return (accepted, (shop.customer.clone(), key));
    }
    panic!("{PLACEMENTS_MAX} orders were accepted while Kafka was away");
}

fn ids<'a>(orders: impl IntoIterator<Item = &'a Accepted>) -> Vec<Uuid> {
    orders.into_iter().map(|order| order.id.parse().unwrap()).collect()
}

async fn reads_stay_up(system: &System, accepted: &[Accepted]) {
    let order = accepted.last().unwrap();
    let client = reqwest::Client::new();
    let read = client.get(format!("{}/api/v1/orders/{}", system.orders.url, order.id));
    let read = read.bearer_auth(&order.customer).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
}

/// Nothing was published yet: the clocks of these sagas have stood still.
async fn no_deadline_fired(system: &System, accepted: &[Accepted]) {
    let ids = ids(accepted);
    let fired = "select count(*) from saga_log where key = any($1) and entry::text like '%deadline%'";
    let fired: i64 = sqlx::query_scalar(fired).bind(&ids).fetch_one(&system.orders_db.pool).await.unwrap();
    assert_eq!(fired, 0, "no deadline fires while Kafka is away");
}

/// Those under way had no answer in time; they have asked once more, and that waits as their answers do.
async fn the_last_call_is_out(system: &System, half_way: &[Accepted]) {
    let ids = ids(half_way);
    eventually_named("the last call of each", READ_TIMEOUT, async || {
        let waiting = "select count(*) from saga_instances where key = any($1) and state #>> '{acting,wait}' = 'last_call'";
        let waiting: i64 = sqlx::query_scalar(waiting).bind(&ids).fetch_one(&system.orders_db.pool).await.unwrap();
        (usize::try_from(waiting).unwrap() == ids.len()).then_some(())
    })
    .await;
}

/// The relay was behind for longer than a step may take: no saga turned back.
async fn nothing_timed_out(system: &System, accepted: &[Accepted]) {
    let ids = ids(accepted);
    let (confirmed, asked_again): (i64, i64) = sqlx::query_as(
        "select (select count(*) from orders where id = any($1) and status = 'CONFIRMED'),
                (select count(*) from saga_log where key = any($1) and entry::text like '%\"attempt\":2%')",
    )
    .bind(&ids)
    .fetch_one(&system.orders_db.pool)
    .await
    .unwrap();
    // After the outage the answers may be late by themselves, on a busy machine.
    println!("{asked_again} commands were sent again");
    assert_eq!(usize::try_from(confirmed).unwrap(), ids.len());
}

/// In each partition the first commands of the sagas lie in the order in which the orders were placed.
async fn oldest_first(system: &System, accepted: &[Accepted]) {
    let place: BTreeMap<&str, usize> =
        accepted.iter().enumerate().map(|(place, order)| (order.id.as_str(), place)).collect();
    let mut last: BTreeMap<i32, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in system.topics.read_to_end("inventory.commands", READ_TIMEOUT).await {
        let Some(place) = place.get(record.key_text()).copied() else { continue };
        // The first ones: a command may be sent again, and a record come twice.
        if record.header("ce_type") != Some("ReserveStock") || !seen.insert(place) {
            continue;
        }
        let before = last.insert(record.partition, place);
        assert!(before.is_none_or(|before| before <= place), "order {place} after {before:?}");
    }
    assert_eq!(seen.len(), accepted.len());
}
