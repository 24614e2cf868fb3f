//! Stock, money and orders, kept by three services in three databases, and what the payment provider remembers: they agree.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::PgPool;

use crate::system::System;

/// Holds the three services' books against each other. Everything is at rest.
///
/// # Panics
/// When they disagree.
pub(crate) async fn agree(system: &System) {
    let orders = orders(&system.orders_db.pool).await;
    let payments = payments(&system.payments_db.pool).await;
    let reservations = reservations(&system.inventory_db.pool).await;
    for (id, order) in &orders {
        let (state, captured, refunded) =
            payments.get(id).map_or(("none", 0, 0), |p| (p.0.as_str(), p.1, p.2));
        let stock = reservations.get(id).map_or("none", String::as_str);
        let told =
            format!("{id} is {}: payment {state} {captured} - {refunded}, stock {stock}", order.status);
        let held = match order.status.as_str() {
            "CONFIRMED" => {
                assert_eq!((state, stock, refunded), ("captured", "committed", 0), "{told}");
                order.total
            }
            "REJECTED" => {
                assert!(["none", "declined", "voided", "failed"].contains(&state), "{told}");
                assert!(["none", "rejected", "released"].contains(&stock), "{told}");
                0
            }
            "CANCELLED" => {
                assert!(["none", "declined", "voided", "failed", "refunded"].contains(&state), "{told}");
                assert!(["none", "rejected", "released", "restocked"].contains(&stock), "{told}");
                assert_eq!(state == "refunded", stock == "restocked", "{told}");
                0
            }
            _ => panic!("at rest, and yet {told}"),
        };
        assert_eq!(captured - refunded, held, "{told}, total {}", order.total);
    }
    assert!(payments.keys().all(|id| orders.contains_key(id)), "no payment without an order");
    assert!(reservations.keys().all(|id| orders.contains_key(id)), "no reservation without an order");
    let held: i64 = payments.values().map(|(_, captured, refunded)| captured - refunded).sum();
    let confirmed: i64 = orders.values().filter(|o| o.status == "CONFIRMED").map(|o| o.total).sum();
    assert_eq!(held, confirmed, "captured - refunded = totals of confirmed orders");
    provider_agrees(&system.payments_db.pool).await;
    shelves(&system.inventory_db.pool, &orders).await;
}

struct Order {
    status: String,
    total: i64,
    lines: BTreeMap<String, i64>,
}

async fn orders(pool: &PgPool) -> BTreeMap<String, Order> {
    let rows: Vec<(String, String, i64, String)> = sqlx::query_as(
        "select o.id::text, o.status, o.total_minor, json_object_agg(l.sku, l.quantity)::text
         from orders o join order_lines l on l.order_id = o.id group by o.id",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let order = |(id, status, total, lines): (String, String, i64, String)| {
        (id, Order { status, total, lines: serde_json::from_str(&lines).unwrap() })
    };
    rows.into_iter().map(order).collect()
}

async fn payments(pool: &PgPool) -> BTreeMap<String, (String, i64, i64)> {
    let rows: Vec<(String, i32, String, i64, i64)> =
        sqlx::query_as("select order_id::text, attempt, state, captured_minor, refunded_minor from payments")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut payments = BTreeMap::new();
    for (id, _, state, captured, refunded) in rows {
        assert!(payments.insert(id.clone(), (state, captured, refunded)).is_none(), "{id} is paid twice");
    }
    payments
}

async fn reservations(pool: &PgPool) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("select order_id::text, state from reservations").fetch_all(pool).await.unwrap();
    rows.into_iter().collect()
}

/// The provider holds, took and gave back what payments believes; no authorization is left hanging on somebody's card.
async fn provider_agrees(pool: &PgPool) {
    let disagreements: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', key, s.state, s.captured_minor, s.refunded_minor, '; payments:', p.state, p.captured_minor,
                          p.refunded_minor)
         from sandbox_authorizations s full join payments p on s.key = p.order_id || ':' || p.attempt
         where (s.state = 'approved' and s.captured_minor = 0)
            or coalesce(s.captured_minor, 0) <> coalesce(p.captured_minor, 0)
            or coalesce(s.refunded_minor, 0) <> coalesce(p.refunded_minor, 0)
            or (s.state is null and p.state not in ('voided'))
            or (p.state is null)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(disagreements.is_empty(), "the provider knows otherwise: {disagreements:#?}");
}

/// Per SKU: receipts = available + reserved + shipped, the ledger's sums are the stock row, what was shipped is what
/// confirmed orders contain, and nothing is reserved any more.
async fn shelves(pool: &PgPool, orders: &BTreeMap<String, Order>) {
    let rows: Vec<(String, i64, i64, i64, String)> = sqlx::query_as(
        "select s.sku, s.available, s.reserved, s.shipped,
                coalesce(json_object_agg(l.kind, l.pieces) filter (where l.kind is not null), '{}')::text
         from stock s left join (select sku, kind, sum(quantity) as pieces from stock_ledger group by sku, kind) l using (sku)
         group by s.sku, s.available, s.reserved, s.shipped",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for (sku, available, reserved, shipped, ledger) in rows {
        let ledger: Value = serde_json::from_str(&ledger).unwrap();
        let moved = |kind: &str| ledger[kind].as_i64().unwrap_or(0);
        let told =
            format!("{sku}: {available} available, {reserved} reserved, {shipped} shipped, ledger {ledger}");
        assert_eq!(moved("receive"), available + reserved + shipped, "{told}");
        assert_eq!(reserved, 0, "{told}");
        assert_eq!(reserved, moved("reserve") - moved("release") - moved("commit"), "{told}");
        assert_eq!(shipped, moved("commit") - moved("restock"), "{told}");
        let confirmed = orders.values().filter(|order| order.status == "CONFIRMED");
        let sold: i64 = confirmed.filter_map(|order| order.lines.get(&sku)).sum();
        assert_eq!(shipped, sold, "{told}; confirmed orders have {sold}");
    }
}
