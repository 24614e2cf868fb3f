//! place-order forwards: from the reply that reserves to the one that commits, with repetitions.

use waybill_events::payments::{AuthorizePayment, CapturePayment};
use waybill_messaging::codec;

use crate::participants::{Participants, Say};
use crate::world::World;

#[tokio::test]
async fn stock_and_money_suffice() {
    let world = World::new("forward").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved]).await;
    assert_eq!(world.standing(order).await, ("PENDING".to_owned(), None, 1), "no event without a change");
    world.reply(order, &[Say::Authorized]).await;
    assert_eq!(world.standing(order).await, ("CONFIRMED".to_owned(), None, 2));
    world.reply(order, &[Say::Captured, Say::Committed]).await;
    assert_eq!(world.standing(order).await, ("CONFIRMED".to_owned(), None, 2));
    assert_eq!(world.said("orders.events", order).await, ["OrderPlaced", "OrderConfirmed"]);
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock", "CommitStock"]);
    assert_eq!(world.said("payments.commands", order).await, ["AuthorizePayment", "CapturePayment"]);
    let status = "select count(*) from saga_instances where status = 'completed'";
    assert_eq!(world.count(status).await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn payments_is_told_what_was_placed() {
    let world = World::new("forward_money").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Authorized]).await;
    let payloads: Vec<Vec<u8>> =
        sqlx::query_scalar("select payload from outbox where topic = 'payments.commands' order by id")
            .fetch_all(world.pool())
            .await
            .unwrap();
    let authorize: AuthorizePayment = codec::decode(&payloads[0]).unwrap();
    assert_eq!((authorize.amount_minor, authorize.currency.as_str(), authorize.attempt), (3048, "EUR", 1));
    assert_eq!((authorize.customer_id, authorize.payment_token.as_str()), (world.customer, "tok_approve"));
    let capture: CapturePayment = codec::decode(&payloads[1]).unwrap();
    assert_eq!((capture.order_id.as_uuid(), capture.attempt), (order, 1));
}

#[tokio::test]
async fn a_message_is_caused_by_the_reply_it_answers() {
    let world = World::new("forward_cause").await;
    let order = world.place().await;
    let (reserved, authorized) = (Say::Reserved.of(order), Say::Authorized.of(order));
    world.hear(&[reserved.clone(), authorized.clone()]).await;
    let causes: Vec<(String, Option<String>)> =
        sqlx::query_as("select headers->>'ce_type', headers->>'ce_causationid' from outbox order by id")
            .fetch_all(world.pool())
            .await
            .unwrap();
    let cause_of = |kind: &str| causes.iter().find(|(said, _)| said == kind).unwrap().1.clone();
    assert_eq!(cause_of("OrderPlaced"), None);
    assert_eq!(cause_of("AuthorizePayment"), Some(reserved.envelope.id.to_string()));
    assert_eq!(cause_of("OrderConfirmed"), Some(authorized.envelope.id.to_string()));
    assert_eq!(cause_of("CapturePayment"), Some(authorized.envelope.id.to_string()));
}

#[tokio::test]
async fn repeated_and_stored_replies_change_nothing() {
    let world = World::new("forward_twice").await;
    let order = world.place().await;
    for say in [Say::Reserved, Say::Authorized, Say::Captured, Say::Committed] {
        let message = say.of(order);
        // The same record twice in one batch and once more later, then the same reply told again under a new id.
        world.hear(&[message.clone(), message.clone()]).await;
        world.hear(&[message]).await;
        world.reply(order, &[say]).await;
    }
    // Everything once more, after the end.
    world.reply(order, &[Say::Committed, Say::Captured, Say::Authorized, Say::Reserved]).await;
    assert_eq!(world.standing(order).await, ("CONFIRMED".to_owned(), None, 2));
    assert_eq!(world.said("payments.commands", order).await.len(), 2);
    assert_eq!(world.said("inventory.commands", order).await.len(), 2);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_batch_of_many_orders_goes_on_together() {
    let world = World::new("forward_many").await;
    let mut orders = Vec::new();
    for _ in 0..40 {
        orders.push(world.place().await);
    }
    Participants::default().run(&world).await;
    let confirmed = "select count(*) from orders where status = 'CONFIRMED' and version = 2";
    assert_eq!(world.count(confirmed).await, 40);
    assert_eq!(world.count("select count(*) from saga_instances where status = 'completed'").await, 40);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_capture_that_fails_is_tried_again_after_the_pivot() {
    let world = World::new("forward_capture").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Authorized, Say::Failed("capture")]).await;
    assert_eq!(
        world.standing(order).await,
        ("CONFIRMED".to_owned(), None, 2),
        "nothing turns after the pivot"
    );
    world.reply(order, &[Say::Captured, Say::Committed]).await;
    assert_eq!(world.count("select count(*) from saga_instances where status = 'completed'").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_reply_for_an_order_that_is_not_ours_is_passed_over() {
    let world = World::new("forward_foreign").await;
    let order = world.place().await;
    world.hear(&[Say::Reserved.of(uuid::Uuid::now_v7()), Say::Reserved.of(order)]).await;
    assert_eq!(world.said("payments.commands", order).await, ["AuthorizePayment"]);
    world.assert_sound().await;
}
