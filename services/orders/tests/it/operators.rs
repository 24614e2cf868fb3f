//! The operators' desk of this service: stuck sagas are mended, their orders follow, the audit tells.

use uuid::Uuid;
use waybill_host::operator::SagaDesk as _;
use waybill_orders::http::saga_desk::OrderSagas;
use waybill_outbox::operate::Change;
use waybill_saga::{Status, Verb};

use crate::participants::Say;
use crate::world::World;

#[tokio::test]
async fn an_abandoned_saga_takes_its_order_along_and_is_audited() {
    let world = World::new("operators_abandon").await;
    let order = world.place().await;
    let (desk, change) = (OrderSagas(world.context.clone()), Change::new("olga", "a test", None).unwrap());
    let view = desk.operate("place-order", order, Verb::Abandon, &change).await.unwrap();
    assert_eq!(view.status, Status::Abandoned);
    assert_eq!(world.standing(order).await.0, "REJECTED");
    assert_eq!(world.count("select count(*) from operator_audit where subject = 'olga'").await, 1);
    world.reply(order, &[Say::Reserved]).await;
    assert_eq!(world.standing(order).await.0, "REJECTED", "a late reply changes nothing");
    world.assert_sound().await;
}

#[tokio::test]
async fn what_is_not_stuck_is_a_conflict_and_what_is_not_there_is_not_found() {
    let world = World::new("operators_refused").await;
    let order = world.place().await;
    let (desk, change) = (OrderSagas(world.context.clone()), Change::new("olga", "a test", None).unwrap());
    for verb in [Verb::Retry, Verb::Skip] {
        let refused = desk.operate("place-order", order, verb, &change).await.unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (409, "wrong_state"));
    }
    for (saga, key) in [("place-order", Uuid::now_v7()), ("cancel-order", order), ("no-saga", order)] {
        let refused = desk.operate(saga, key, Verb::Retry, &change).await.unwrap_err();
        assert_eq!(refused.status, 404, "{saga}");
    }
    assert_eq!(world.count("select count(*) from operator_audit").await, 0);
}

#[tokio::test]
async fn a_confirmed_order_that_an_operator_settled_by_hand_is_not_taken_back() {
    let world = World::new("operators_settled").await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Authorized]).await;
    let (desk, change) = (OrderSagas(world.context.clone()), Change::new("olga", "a test", None).unwrap());
    desk.operate("place-order", order, Verb::Abandon, &change).await.unwrap();
    assert_eq!(world.standing(order).await.0, "CONFIRMED");
    let refused = world.cancel(order).await;
    assert_eq!(refused.refusal(), (409, "order_not_cancellable".to_owned(), vec![]));
    assert!(refused.json().to_string().contains("an operator has settled it by hand"), "{refused:?}");
    assert_eq!(world.standing(order).await, ("CONFIRMED".to_owned(), None, 2));
    // Nothing was captured: a refund would be refused, and would stop the key.
    assert_eq!(world.said("payments.commands", order).await, ["AuthorizePayment", "CapturePayment"]);
    assert_eq!(world.count("select count(*) from saga_instances where saga = 'cancel-order'").await, 0);
    world.assert_sound().await;
}
