//! The catalogue over HTTP: added once, priced, listed, and every event numbered.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use waybill_events::topic::INVENTORY_EVENTS;
use waybill_testkit::eventually;

use crate::world::{World, new_key, said, send};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn tea() -> Value {
    json!({"sku": "TEA-1", "name": " Green tea ", "unit_price_minor": 899, "currency": "EUR"})
}

#[tokio::test]
async fn a_product_is_added_once_per_key_and_read() {
    let world = World::new("products_add").await;
    let key = new_key();
    let first = world.post("/products", &key, &tea()).await;
    assert_eq!((first.status.as_u16(), first.location.as_deref()), (201, Some("/api/v1/products/TEA-1")));
    let body = first.json();
    let shown = (&body["sku"], &body["name"], &body["unit_price_minor"], &body["currency"], &body["version"]);
    assert_eq!(
        shown,
        (&json!("TEA-1"), &json!("Green tea"), &json!(899), &json!("EUR"), &json!(1)),
        "the name is trimmed"
    );

    let again = world.post("/products", &format!("\"{key}\""), &tea()).await;
    assert_eq!((again.status.as_u16(), again.replayed), (201, true));
    assert_eq!(again.bytes, first.bytes, "byte for byte");
    let mut other = tea();
    other["name"] = json!("Black tea");
    assert_eq!(world.post("/products", &key, &other).await.refusal().1, "idempotency_key_reused");
    let taken = world.post("/products", &new_key(), &other).await.refusal();
    assert_eq!(taken, (409, "sku_taken".to_owned(), vec!["sku".to_owned()]));

    assert_eq!(world.get("/products/TEA-1").await.json(), body, "the first answer and the row say the same");
    assert_eq!(world.get("/products/TEA-2").await.refusal().1, "unknown_sku");
    let none = json!({"sku": "TEA-1", "available": 0, "reserved": 0, "shipped": 0});
    assert_eq!(world.get("/stock/TEA-1").await.json(), none);
    assert_eq!(said(world.pool(), INVENTORY_EVENTS, "TEA-1").await, [("ProductAdded".to_owned(), 1)]);
}

#[tokio::test]
async fn everything_said_about_a_sku_has_one_counter() {
    let world = World::new("products_price").await;
    world.post("/products", &new_key(), &tea()).await;
    let price = |minor: i64, currency: &str| json!({"unit_price_minor": minor, "currency": currency});
    let key = new_key();
    let changed = world.put("/products/TEA-1/price", &key, &price(949, "EUR")).await;
    assert_eq!((changed.status.as_u16(), &changed.json()["version"]), (200, &json!(2)));
    let replayed = world.put("/products/TEA-1/price", &key, &price(949, "EUR")).await;
    assert!(replayed.replayed && replayed.bytes == changed.bytes);
    let same = world.put("/products/TEA-1/price", &new_key(), &price(949, "EUR")).await;
    assert_eq!(same.json()["version"], 2, "the same price says nothing");
    world.post("/stock/TEA-1/receipts", &new_key(), &json!({"quantity": 5})).await;
    let dollars = world.put("/products/TEA-1/price", &new_key(), &price(999, "USD")).await.json();
    assert_eq!((&dollars["version"], &dollars["currency"]), (&json!(4), &json!("USD")));

    let kinds = ["ProductAdded", "ProductPriceChanged", "StockReceived", "ProductPriceChanged"];
    let expected: Vec<(String, i64)> = kinds.iter().map(|kind| (*kind).to_owned()).zip(1..).collect();
    assert_eq!(said(world.pool(), INVENTORY_EVENTS, "TEA-1").await, expected);
    let unknown = world.put("/products/TEA-9/price", &new_key(), &price(1, "EUR")).await;
    assert_eq!(unknown.refusal(), (404, "unknown_sku".to_owned(), vec![]));
}

#[tokio::test]
async fn the_catalogue_is_paged_newest_first() {
    let world = World::new("products_list").await;
    for number in 0..5 {
        let product =
            json!({"sku": format!("P-{number}"), "name": "P", "unit_price_minor": 1, "currency": "EUR"});
        assert_eq!(world.post("/products", &new_key(), &product).await.status, 201);
    }
    let mut seen = Vec::new();
    let mut path = "/products?limit=2".to_owned();
    for _page in 0..3 {
        let page = world.get(&path).await.json();
        let skus =
            page["items"].as_array().unwrap().iter().map(|item| item["sku"].as_str().unwrap().to_owned());
        seen.extend(skus);
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/products?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["P-4", "P-3", "P-2", "P-1", "P-0"]);
    assert_eq!(world.get("/products?cursor=nonsense").await.refusal().2, ["cursor"]);
    assert_eq!(world.get("/products?limit=0").await.refusal().2, ["limit"]);
}

/// The first request holds the product's row too: the second must not be told that somebody else changes the product.
#[tokio::test]
async fn a_key_whose_first_request_still_runs_is_told_so() {
    let world = World::limited("products_key_runs").await;
    assert_eq!(world.post("/products", &new_key(), &tea()).await.status, 201);
    let gate = [
        "create table gate as select 1",
        "create function wait_at_gate() returns trigger language plpgsql as $$ begin
             while exists (select from gate) loop perform pg_sleep(0.02); end loop;
             return new;
         end $$",
        "create trigger wait_at_gate before update on products for each row execute function wait_at_gate()",
    ];
    for statement in gate {
        sqlx::query(statement).execute(world.pool()).await.unwrap();
    }
    let (key, price) = (new_key(), json!({"unit_price_minor": 950, "currency": "EUR"}));
    let put = || {
        let put = world.request("admin", Method::PUT, "/products/TEA-1/price");
        send(put.header("Idempotency-Key", key.as_str()).json(&price))
    };
    let first = tokio::spawn(put());
    let waits = "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event = 'PgSleep'";
    eventually(PATIENCE, async || {
        let waiting: i64 = sqlx::query_scalar(waits).fetch_one(world.pool()).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    let other_key = new_key();
    let (second, another) = tokio::join!(put(), world.put("/products/TEA-1/price", &other_key, &price));
    assert_eq!(second.refusal().1, "idempotency_key_in_progress");
    assert_eq!(another.refusal().1, "in_progress", "another key waits for the product");
    sqlx::query("delete from gate").execute(world.pool()).await.unwrap();
    first.await.unwrap();
    assert_eq!(put().await.status, 200);
    let said = said(world.pool(), INVENTORY_EVENTS, "TEA-1").await;
    assert_eq!(said.len(), 2, "the price changed once: {said:?}");
}
