//! A cancel at every point of an order's life.

use reqwest::Method;
use uuid::Uuid;
use waybill_testkit::eventually;

use crate::participants::Say;
use crate::world::{PATIENCE, World, send};

const BY_CUSTOMER: &str = "cancelled_by_customer";

fn stands(status: &str, reason: &str, version: i64) -> (String, Option<String>, i64) {
    (status.to_owned(), Some(reason.to_owned()), version)
}

async fn cancel_accepted(world: &World, order: Uuid) {
    let answer = world.cancel(order).await;
    assert_eq!((answer.status.as_u16(), answer.json()["status"].as_str().unwrap()), (202, "CANCELLING"));
    assert_eq!(answer.bytes, world.get(&format!("/orders/{order}")).await.bytes, "answered as it stands");
}

#[tokio::test]
async fn before_anybody_answered() {
    let world = World::new("cancel_first").await;
    let order = world.place().await;
    cancel_accepted(&world, order).await;
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock", "ReleaseStock"]);
    // The reservation in doubt is answered late, then the release.
    world.reply(order, &[Say::Reserved, Say::Released]).await;
    assert_eq!(world.standing(order).await, stands("CANCELLED", BY_CUSTOMER, 3));
    let events = ["OrderPlaced", "OrderCancellationRequested", "OrderCancelled"];
    assert_eq!(world.said("orders.events", order).await, events);
    assert!(world.said("payments.commands", order).await.is_empty());
    world.assert_sound().await;
}

#[tokio::test]
async fn while_the_payment_is_being_authorized() {
    let world = World::new("cancel_authorizing").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved]).await;
    cancel_accepted(&world, order).await;
    // The approval crosses the void: the saga has turned, no pivot can follow.
    world.reply(order, &[Say::Authorized]).await;
    assert_eq!(world.standing(order).await, stands("CANCELLING", BY_CUSTOMER, 2));
    world.reply(order, &[Say::Voided, Say::Released]).await;
    assert_eq!(world.standing(order).await, stands("CANCELLED", BY_CUSTOMER, 3));
    assert_eq!(world.said("payments.commands", order).await, ["AuthorizePayment", "VoidPayment"]);
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock", "ReleaseStock"]);
    world.assert_sound().await;
}

#[tokio::test]
async fn while_a_refusal_is_being_taken_back() {
    let world = World::new("cancel_declined").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Declined]).await;
    cancel_accepted(&world, order).await;
    world.reply(order, &[Say::Released]).await;
    assert_eq!(world.standing(order).await, stands("CANCELLED", BY_CUSTOMER, 3));
    world.assert_sound().await;
}

#[tokio::test]
async fn after_the_pivot_and_before_the_end_of_place_order() {
    for already in [&[][..], &[Say::Captured][..]] {
        let world = World::new("cancel_confirmed").await;
        let order = world.place().await;
        world.reply(order, &[Say::Reserved, Say::Authorized]).await;
        world.reply(order, already).await;
        cancel_accepted(&world, order).await;
        let started = "select count(*) from saga_instances where saga = 'cancel-order'";
        assert_eq!(world.count(started).await, 0, "one saga at a time");
        // place-order goes on to its end, whose transaction starts cancel-order.
        world.reply(order, &[Say::Captured, Say::Committed][already.len()..]).await;
        assert_eq!(world.count(started).await, 1);
        world.reply(order, &[Say::Refunded, Say::Restocked]).await;
        assert_eq!(world.standing(order).await, stands("CANCELLED", BY_CUSTOMER, 4));
        let payments = ["AuthorizePayment", "CapturePayment", "RefundPayment"];
        assert_eq!(world.said("payments.commands", order).await, payments);
        assert_eq!(
            world.said("inventory.commands", order).await,
            ["ReserveStock", "CommitStock", "RestockOrder"]
        );
        world.assert_sound().await;
    }
}

#[tokio::test]
async fn after_the_end_of_place_order() {
    let world = World::new("cancel_completed").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Authorized, Say::Captured, Say::Committed]).await;
    cancel_accepted(&world, order).await;
    assert_eq!(world.said("payments.commands", order).await.last().unwrap(), "RefundPayment");
    world.reply(order, &[Say::Refunded]).await;
    assert_eq!(world.standing(order).await, stands("CANCELLING", BY_CUSTOMER, 3));
    world.reply(order, &[Say::Refunded, Say::Restocked, Say::Restocked]).await;
    assert_eq!(world.standing(order).await, stands("CANCELLED", BY_CUSTOMER, 4));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_cancel_may_be_repeated_and_changes_nothing_then() {
    let world = World::new("cancel_twice").await;
    let order = world.place().await;
    cancel_accepted(&world, order).await;
    cancel_accepted(&world, order).await;
    world.reply(order, &[Say::Released]).await;
    let ended = world.cancel(order).await;
    assert_eq!((ended.status.as_u16(), ended.json()["status"].as_str().unwrap()), (200, "CANCELLED"));
    assert_eq!(world.standing(order).await, stands("CANCELLED", BY_CUSTOMER, 3));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_rejected_order_can_not_be_cancelled() {
    let world = World::new("cancel_rejected").await;
    let order = world.place().await;
    world.reply(order, &[Say::Rejected("insufficient_stock")]).await;
    assert_eq!(world.cancel(order).await.refusal(), (409, "order_not_cancellable".to_owned(), vec![]));
    assert_eq!(world.standing(order).await, stands("REJECTED", "insufficient_stock", 2));
    world.assert_sound().await;
}

#[tokio::test]
async fn staff_cancel_in_their_own_name() {
    let world = World::new("cancel_staff").await;
    let order = world.place().await;
    let path = format!("/orders/{order}/cancel");
    assert_eq!(send(world.request("desk", "operator", Method::POST, &path)).await.status, 202);
    world.reply(order, &[Say::Released]).await;
    assert_eq!(world.standing(order).await, stands("CANCELLED", "cancelled_by_operator", 3));
}

#[tokio::test]
async fn a_hang_up_does_not_stop_a_cancel_half_way() {
    let world = World::new("cancel_hang_up").await;
    let order = world.place().await;
    world.gate_close("update").await;
    world.hang_up_at_gate(world.customers(Method::POST, &format!("/orders/{order}/cancel"))).await;
    eventually(PATIENCE, async || (world.standing(order).await.0 == "CANCELLING").then_some(())).await;
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock", "ReleaseStock"]);
    world.assert_sound().await;
}
