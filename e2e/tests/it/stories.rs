//! The four stories, and a customer who changes their mind.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use reqwest::StatusCode;
use tokio::process::Command;
use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::journal::Accepted;
use crate::shop::Shop;
use crate::system::System;

/// Orders in the burst of story d.
const BURST: usize = 500;
/// Requests at a time in the burst.
const BURST_AT_ONCE: usize = 32;
/// Longest wait for what orders on their way lead to.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_and_money_decide_what_becomes_of_an_order() {
    let system = System::start("e2e_stories").await;
    let shop = Shop::new(&system);
    for sku in ["tea-a", "tea-b", "tea-c", "tea-d"] {
        shop.product(sku, 1_250, 10).await;
    }
    confirmed(&shop).await;
    too_little_stock(&shop).await;
    declined(&shop).await;
    cancelled_afterwards(&shop).await;
    invariants::hold(&system, &shop.accepted()).await;
}

/// a) Stock and money suffice.
async fn confirmed(shop: &Shop<'_>) {
    let id = shop.order(&[("tea-a", 2), ("tea-d", 1)], "tok_approve").await;
    let order = shop.becomes(&id, "CONFIRMED").await;
    assert_eq!(order["total_minor"], 3 * 1_250, "{order}");
    shop.stock_becomes("tea-a", (8, 0, 2)).await;
    shop.stock_becomes("tea-d", (9, 0, 1)).await;
    let payment = shop.payment_becomes(&id, "captured").await;
    assert_eq!(payment["captured_minor"], 3 * 1_250, "{payment}");
}

/// b) Too little stock: nothing reserved, no payment attempted.
async fn too_little_stock(shop: &Shop<'_>) {
    let id = shop.order(&[("tea-b", 11), ("tea-a", 1)], "tok_approve").await;
    let order = shop.becomes(&id, "REJECTED").await;
    assert_eq!(order["reason"], "insufficient_stock", "{order}");
    assert_eq!(shop.stock("tea-b").await, (10, 0, 0));
    assert_eq!(shop.stock("tea-a").await, (8, 0, 2), "none of its lines is reserved");
    assert_eq!(shop.payment(&id).await.0, StatusCode::NOT_FOUND);
}

/// c) The payment is declined: the stock comes back.
async fn declined(shop: &Shop<'_>) {
    let id = shop.order(&[("tea-c", 3)], "tok_decline").await;
    let order = shop.becomes(&id, "REJECTED").await;
    assert_eq!(order["reason"], "payment_declined", "{order}");
    shop.stock_becomes("tea-c", (10, 0, 0)).await;
    assert_eq!(shop.payment_becomes(&id, "declined").await["captured_minor"], 0);
}

/// A confirmed order is cancelled: money and stock come back.
async fn cancelled_afterwards(shop: &Shop<'_>) {
    let id = shop.order(&[("tea-c", 4)], "tok_approve").await;
    shop.becomes(&id, "CONFIRMED").await;
    let (status, body) = shop.cancel(&id).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let order = shop.becomes(&id, "CANCELLED").await;
    assert_eq!(order["reason"], "cancelled_by_customer", "{order}");
    shop.stock_becomes("tea-c", (10, 0, 0)).await;
    assert_eq!(shop.payment_becomes(&id, "refunded").await["refunded_minor"], 4 * 1_250);
}

/// d) The relay is killed in the middle of a burst and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_relay_loses_nothing_and_keeps_order() {
    let mut system = System::start("e2e_burst").await;
    let quantity = i64::try_from(BURST).unwrap();
    let mut accepted = {
        let shop = Shop::new(&system);
        shop.product("tea", 999, quantity).await;
        place(&shop, BURST / 2).await
    };
    accepted.extend(place_and_kill(&Shop::new(&system)).await);
    // It is gone; here it is waited for.
    system.relay.kill9().await;
    System::restart(&mut system.relay).await;
    let shop = Shop::new(&system);
    shop.stock_becomes("tea", (0, 0, quantity)).await;
    let confirmed: i64 = sqlx::query_scalar("select count(*) from orders where status = 'CONFIRMED'")
        .fetch_one(&system.orders_db.pool)
        .await
        .unwrap();
    assert_eq!(confirmed, quantity);
    invariants::hold(&system, &accepted).await;
}

/// Places the second half and kills the relay when a quarter of it is answered: more are on their way, most are to come.
async fn place_and_kill(shop: &Shop<'_>) -> Vec<Accepted> {
    let one = |_| shop.order(&[("tea", 1)], "tok_approve");
    let answers = stream::iter(0..BURST / 2).map(one).buffer_unordered(BURST_AT_ONCE).enumerate();
    answers
        .for_each(async |(number, _)| {
            if number == BURST / 8 {
                kill_relay(shop.system).await;
            }
        })
        .await;
    shop.accepted()
}

/// Kills it, and sees that it has not published all there is.
async fn kill_relay(system: &System) {
    let pid = system.relay.pid().expect("the relay runs").to_string();
    let killed = Command::new("kill").args(["-9", &pid]).status().await.unwrap();
    assert!(killed.success());
    let unpublished = "select count(*) from outbox o, outbox_relay r
                       where not pg_visible_in_snapshot(o.xid, r.position_from)";
    eventually_named("rows that wait to be published", STEP_TIMEOUT, async || {
        let count: i64 = sqlx::query_scalar(unpublished).fetch_one(&system.orders_db.pool).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
}

async fn place(shop: &Shop<'_>, count: usize) -> Vec<Accepted> {
    let one = |_| shop.order(&[("tea", 1)], "tok_approve");
    stream::iter(0..count).map(one).buffer_unordered(BURST_AT_ONCE).for_each(|_| async {}).await;
    shop.accepted()
}
