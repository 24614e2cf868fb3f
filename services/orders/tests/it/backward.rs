//! place-order backwards: refusals before the pivot take back what was done, and the order is REJECTED.

use crate::participants::Say;
use crate::world::World;

fn rejected(reason: &str) -> (String, Option<String>, i64) {
    ("REJECTED".to_owned(), Some(reason.to_owned()), 2)
}

#[tokio::test]
async fn too_little_stock() {
    let world = World::new("backward_stock").await;
    let order = world.place().await;
    world.reply(order, &[Say::Rejected("insufficient_stock")]).await;
    assert_eq!(world.standing(order).await, rejected("insufficient_stock"));
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock"], "nothing was reserved");
    assert!(world.said("payments.commands", order).await.is_empty(), "no payment was attempted");
    assert_eq!(world.said("orders.events", order).await, ["OrderPlaced", "OrderRejected"]);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_declined_payment_gives_the_stock_back() {
    let world = World::new("backward_declined").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Declined]).await;
    assert_eq!(world.standing(order).await.0, "PENDING", "not before the stock is back");
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock", "ReleaseStock"]);
    world.reply(order, &[Say::Released]).await;
    assert_eq!(world.standing(order).await, rejected("payment_declined"));
    assert_eq!(world.said("payments.commands", order).await, ["AuthorizePayment"], "nothing to void");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_payment_given_up_gives_the_stock_back() {
    let world = World::new("backward_failed").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Failed("authorize"), Say::Released]).await;
    assert_eq!(world.standing(order).await, rejected("payment_failed"));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_refusal_without_a_code_is_still_a_refusal() {
    let world = World::new("backward_prose").await;
    let order = world.place().await;
    world.reply(order, &[Say::Rejected("We are out of it, sorry!")]).await;
    assert_eq!(world.standing(order).await, rejected("unspecified"));
}

#[tokio::test]
async fn late_and_repeated_replies_change_nothing_on_the_way_back_or_after() {
    let world = World::new("backward_late").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Declined]).await;
    // An earlier attempt's answers, crossing the way back.
    world.reply(order, &[Say::Authorized, Say::Reserved, Say::Declined]).await;
    world.reply(order, &[Say::Released]).await;
    assert_eq!(world.standing(order).await, rejected("payment_declined"));
    world.reply(order, &[Say::Released, Say::Authorized, Say::Captured, Say::Reserved]).await;
    assert_eq!(world.standing(order).await, rejected("payment_declined"));
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock", "ReleaseStock"]);
    assert_eq!(world.said("orders.events", order).await.len(), 2);
    world.assert_sound().await;
}
