//! Receipts over HTTP: once per key also under a race, bounded, and in the ledger.

use futures_util::future::join_all;
use serde_json::json;
use waybill_events::topic::INVENTORY_EVENTS;

use crate::world::{World, new_key, said};

#[tokio::test]
async fn a_receipt_counts_once_per_key_also_when_sent_at_the_same_time() {
    let world = World::new("stock_receipts").await;
    world.stocked("TEA-1", 5).await;
    let (key, receipt) = (new_key(), json!({"quantity": 10}));
    let answers = join_all((0..5).map(|_| world.post("/stock/TEA-1/receipts", &key, &receipt))).await;
    let firsts = answers.iter().filter(|answer| answer.status == 201 && !answer.replayed).count();
    assert_eq!(firsts, 1, "{answers:?}");
    for answer in &answers {
        let same = answer.status == 201 && answer.bytes == answers[0].bytes;
        assert!(same || answer.refusal().1 == "idempotency_key_in_progress", "{answer:?}");
    }
    assert_eq!(world.get("/stock/TEA-1").await.json()["available"], 15);
    assert_eq!(said(world.pool(), INVENTORY_EVENTS, "TEA-1").await.len(), 3, "one event per receipt");
    let ledger: i64 = sqlx::query_scalar("select sum(quantity) from stock_ledger where kind = 'receive'")
        .fetch_one(world.pool())
        .await
        .unwrap();
    assert_eq!(ledger, 15);
}

#[tokio::test]
async fn two_adders_of_one_sku_get_one_product() {
    let world = World::new("stock_race").await;
    let product = json!({"sku": "RACE", "name": "R", "unit_price_minor": 1, "currency": "EUR"});
    let key = new_key();
    let same_key = join_all((0..4).map(|_| world.post("/products", &key, &product))).await;
    assert!(
        same_key.iter().all(|a| a.status == 201 || a.refusal().1 == "idempotency_key_in_progress"),
        "who loses the race with its own key is never told that the SKU is taken: {same_key:?}"
    );
    assert_eq!(said(world.pool(), INVENTORY_EVENTS, "RACE").await.len(), 1);

    let product = json!({"sku": "RACE-2", "name": "R", "unit_price_minor": 1, "currency": "EUR"});
    let keys: Vec<String> = (0..4).map(|_| new_key()).collect();
    let answers = join_all(keys.iter().map(|key| world.post("/products", key, &product))).await;
    let added = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(added, 1, "{answers:?}");
    assert!(answers.iter().all(|a| a.status == 201 || a.refusal().1 == "sku_taken"), "{answers:?}");
}

#[tokio::test]
async fn the_shelf_has_a_limit() {
    let world = World::new("stock_overflow").await;
    world.stocked("TEA-1", 1_000_000_000).await;
    let billion = json!({"quantity": 1_000_000_000});
    assert_eq!(world.post("/stock/TEA-1/receipts", &new_key(), &billion).await.status, 201);
    let before = world.rows().await;
    let refusal = world.post("/stock/TEA-1/receipts", &new_key(), &billion).await.refusal();
    assert_eq!(refusal, (409, "stock_overflow".to_owned(), vec!["quantity".to_owned()]));
    assert_eq!(world.rows().await, before);
}
