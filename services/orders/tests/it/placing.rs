//! Placing an order: what is answered and written, and what a repeated or hung-up request gets.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use waybill_events::inventory::ReserveStock;
use waybill_events::orders::OrderPlaced;
use waybill_http::idempotency::{IdempotencyKey, StoredResponse, key_insert_in_tx, keys_prune};
use waybill_messaging::codec;
use waybill_testkit::eventually;

use crate::world::{PATIENCE, World, new_key, usual_order};

#[tokio::test]
async fn the_order_is_priced_by_the_catalogue_and_answered_as_it_will_be_read() {
    let world = World::new("place_usual").await;
    let answer = world.post(&new_key(), &usual_order()).await;
    assert_eq!(answer.status, 202);
    let (body, order) = (answer.json(), answer.order());
    assert_eq!(answer.location.clone().unwrap(), format!("/api/v1/orders/{order}"));
    assert_eq!(order.get_version_num(), 7);
    let expected = json!({
        "id": order, "status": "PENDING", "reason": null, "currency": "EUR", "total_minor": 3048,
        "lines": [{"sku": "TEA", "quantity": 2, "unit_price_minor": 899},
                  {"sku": "CUP", "quantity": 1, "unit_price_minor": 1250}],
        "version": 1, "created_at": body["created_at"], "updated_at": body["created_at"],
    });
    assert_eq!(body, expected);
    assert_eq!(world.get(&format!("/orders/{order}")).await.bytes, answer.bytes, "read as it was answered");
}

#[tokio::test]
async fn key_order_lines_saga_and_messages_are_written_together() {
    let world = World::new("place_rows").await;
    let order = world.place().await;
    for (table, rows) in [
        ("select count(*) from idempotency_keys", 1),
        ("select count(*) from orders", 1),
        ("select count(*) from order_lines", 2),
        ("select count(*) from saga_instances where saga = 'place-order' and status = 'running'", 1),
        ("select count(*) from saga_log", 1),
        ("select count(*) from outbox", 2),
    ] {
        assert_eq!(world.count(table).await, rows, "{table}");
    }
    let payload = async |topic: &str| -> Vec<u8> {
        let found = sqlx::query_scalar("select payload from outbox where topic = $1").bind(topic);
        found.fetch_one(world.pool()).await.unwrap()
    };
    let placed: OrderPlaced = codec::decode(&payload("orders.events").await).unwrap();
    assert_eq!((placed.order_id.as_uuid(), placed.customer_id), (order, world.customer));
    assert_eq!((placed.total_minor, placed.lines.len()), (3048, 2));
    let reserve: ReserveStock = codec::decode(&payload("inventory.commands").await).unwrap();
    let lines: Vec<_> = reserve.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
    assert_eq!(lines, [("TEA", 2), ("CUP", 1)]);
    let headers: Vec<String> = sqlx::query_scalar("select headers->>'ce_correlationid' from outbox")
        .fetch_all(world.pool())
        .await
        .unwrap();
    assert_eq!(headers, [order.to_string(), order.to_string()]);
    world.assert_sound().await;
}

#[tokio::test]
async fn the_callers_trace_goes_on_into_the_messages() {
    let world = World::new("place_trace").await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = world.customers(reqwest::Method::POST, "/orders").header("Idempotency-Key", new_key());
    let request =
        request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01")).json(&usual_order());
    assert_eq!(crate::world::send(request).await.status, 202);
    let traced = "select count(*) from outbox where headers->>'traceparent' like '00-0af7651916cd43dd8448eb211c80319c-%'";
    assert_eq!(world.count(traced).await, 2);
}

#[tokio::test]
async fn fifty_at_once_with_one_key_make_one_order_and_get_the_same_bytes() {
    let world = World::new("place_fifty").await;
    let (key, body) = (new_key(), usual_order());
    let answers = join_all((0..50).map(|_| world.post(&key, &body))).await;
    let first = answers.iter().find(|answer| !answer.replayed).expect("one of them placed the order");
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.bytes), (202, &first.bytes));
        assert_eq!(answer.location, first.location);
    }
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert_eq!(world.count("select count(*) from orders").await, 1);
    assert_eq!(world.count("select count(*) from outbox").await, 2);
    // Also later, when the order has moved on.
    world.cancel(first.order()).await;
    let later = world.post(&key, &body).await;
    assert_eq!((later.replayed, &later.bytes), (true, &first.bytes));
}

#[tokio::test]
async fn a_key_belongs_to_its_caller_and_its_body() {
    let world = World::new("place_keys").await;
    let key = new_key();
    let first = world.post(&key, &usual_order()).await;
    let mut other = usual_order();
    other["lines"][0]["quantity"] = json!(3);
    let reused = world.post(&key, &other).await;
    assert_eq!(reused.refusal(), (422, "idempotency_key_reused".to_owned(), vec![]));
    // The same request written in another layout is the same request; a quoted key is the same key.
    let layout = r#"{"payment_token":"tok_approve", "currency":"EUR",
        "lines":[{"quantity":2,"sku":"TEA"},{"quantity":1,"sku":"CUP"}]}"#;
    let request =
        world.customers(reqwest::Method::POST, "/orders").header("Content-Type", "application/json");
    let request = request.header("Idempotency-Key", format!("\"{key}\"")).body(layout);
    let again = crate::world::send(request).await;
    assert_eq!((again.replayed, &again.bytes), (true, &first.bytes));
    let stranger = waybill_events::CustomerId::generate().to_string();
    let request = world.request(&stranger, "customer", reqwest::Method::POST, "/orders");
    let theirs = crate::world::send(request.header("Idempotency-Key", &key).json(&usual_order())).await;
    assert_eq!((theirs.status.as_u16(), theirs.replayed), (202, false));
    assert_ne!(theirs.order(), first.order());
}

#[tokio::test]
async fn a_key_is_kept_for_a_day_and_then_names_a_new_order() {
    let world = World::new("place_expired").await;
    let key = new_key();
    let first = world.post(&key, &usual_order()).await;
    let mut other = usual_order();
    other["lines"][0]["quantity"] = json!(3);
    let aged = async |age: &str| {
        let aged = "update idempotency_keys set created_at = now() - $1::interval";
        sqlx::query(aged).bind(age).execute(world.pool()).await.unwrap();
        keys_prune(world.pool()).await.unwrap()
    };
    assert_eq!(aged("23 hours 59 minutes").await, 0);
    let again = world.post(&key, &usual_order()).await;
    assert_eq!((again.replayed, &again.bytes), (true, &first.bytes), "the first answer for 24 hours");
    assert_eq!(world.post(&key, &other).await.refusal().0, 422);
    assert_eq!(aged("24 hours 1 minute").await, 1);
    let second = world.post(&key, &other).await;
    assert_eq!(
        (second.status.as_u16(), second.replayed),
        (202, false),
        "any body: nobody remembers the first"
    );
    assert_ne!(second.order(), first.order());
    let repeated = world.post(&key, &other).await;
    assert_eq!((repeated.replayed, &repeated.bytes), (true, &second.bytes), "kept for a day of its own");
    assert_eq!(world.post(&key, &usual_order()).await.refusal().0, 422);
    assert_eq!(world.count("select count(*) from orders").await, 2);
    assert_eq!(world.get(&format!("/orders/{}", first.order())).await.bytes, first.bytes, "the order stays");
    world.assert_sound().await;
}

#[tokio::test]
async fn while_the_first_request_runs_the_second_waits_and_then_hears_of_it() {
    let world = World::new("place_waits").await;
    let key = IdempotencyKey::parse("in-progress").unwrap();
    let answer = StoredResponse::new(StatusCode::ACCEPTED, None, b"{}".to_vec());
    let (scope, hash) = (world.customer.to_string(), [0; 32]);
    let mut first = world.pool().begin().await.unwrap();
    let won = key_insert_in_tx(&mut *first, &scope, "POST /api/v1/orders", &key, &hash, &answer).await;
    assert!(won.unwrap());
    let second = world.post("in-progress", &usual_order()).await;
    assert_eq!(second.refusal(), (409, "idempotency_key_in_progress".to_owned(), vec![]));
    first.rollback().await.unwrap();
    assert_eq!(
        world.post("in-progress", &usual_order()).await.status,
        202,
        "a key that was given up is free"
    );
}

#[tokio::test]
async fn a_price_that_changes_leaves_placed_orders_alone() {
    let world = World::new("place_price").await;
    let before = world.place().await;
    sqlx::query("update catalogue set unit_price_minor = 1, version = 2")
        .execute(world.pool())
        .await
        .unwrap();
    let after = world.place().await;
    let total = async |order| world.get(&format!("/orders/{order}")).await.json()["total_minor"].as_i64();
    assert_eq!((total(before).await, total(after).await), (Some(3048), Some(3)));
}

#[tokio::test]
async fn a_hang_up_does_not_half_place_an_order() {
    let world = World::new("place_hang_up").await;
    world.gate_close("insert").await;
    let key = new_key();
    let request = world.customers(reqwest::Method::POST, "/orders").header("Idempotency-Key", &key);
    world.hang_up_at_gate(request.json(&usual_order())).await;
    let placed = "select count(*) from orders";
    eventually(PATIENCE, async || (world.count(placed).await == 1).then_some(())).await;
    let again = world.post(&key, &usual_order()).await;
    assert_eq!((again.status.as_u16(), again.replayed), (202, true));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_remembered_price_that_has_changed_is_never_charged() {
    let world = World::new("place_repriced").await;
    world.place().await;
    let change = "update catalogue set unit_price_minor = 1000, version = version + 1 where sku = 'TEA'";
    sqlx::query(change).execute(world.pool()).await.unwrap();
    let answer = world.post(&new_key(), &usual_order()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["total_minor"].as_i64()), (202, Some(3250)));

    let key = new_key();
    let first = world.post(&key, &usual_order()).await;
    sqlx::query("delete from catalogue where sku = 'CUP'").execute(world.pool()).await.unwrap();
    let again = world.post(&key, &usual_order()).await;
    assert!(again.replayed, "the key decides before the price");
    assert_eq!(again.bytes, first.bytes);
    assert_eq!(world.post(&new_key(), &usual_order()).await.refusal().0, 422, "it is not sold any more");
    assert_eq!(world.count("select count(*) from orders").await, 3);
}
