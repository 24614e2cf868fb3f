//! Commands in every order and number, tokens of every kind, a worker that dies: money moves once, and the order hears the truth.

use std::time::Duration;

use waybill_events::OrderId;
use waybill_outbox::inbox::Verdict;

use crate::world::{AMOUNT, REPLY_TIMEOUT, World, authorize, capture, refund, void};

#[tokio::test]
async fn tokens_decide() {
    let world = World::new("pay_tokens").await;
    world.start_worker();
    let mut orders = Vec::new();
    for (token, reply) in [
        ("tok_approve", "PaymentAuthorized"),
        ("tok_decline", "PaymentDeclined"),
        ("tok_timeout_once", "PaymentAuthorized"),
        ("tok_unknown", "PaymentAuthorized"),
        ("tok_fail_2", "PaymentAuthorized"),
        ("tok_slow_50", "PaymentAuthorized"),
        ("tok_of_nobody", "PaymentDeclined"),
    ] {
        let order = OrderId::generate();
        world.deliver(order, &authorize(order, token)).await;
        orders.push((token, order, reply));
    }
    for (token, order, reply) in orders {
        assert_eq!(world.told(order, 1).await, [reply], "{token}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_and_not_paid_twice() {
    let world = World::new("pay_unknown").await;
    world.start_worker();
    let order = OrderId::generate();
    world.deliver(order, &authorize(order, "tok_unknown")).await;
    assert_eq!(world.told(order, 1).await, ["PaymentAuthorized"]);
    let (state, _, _, calls) = world.sandbox(order).await.unwrap();
    assert_eq!((state.as_str(), calls), ("approved", 1), "asked for, not called again");
}

#[tokio::test]
async fn capture_and_refund_happen_once_however_often_they_are_asked() {
    let world = World::new("pay_capture").await;
    world.start_worker();
    let order = OrderId::generate();
    world.deliver(order, &authorize(order, "tok_approve")).await;
    world.told(order, 1).await;
    for told in 2..=4 {
        assert!(matches!(world.deliver(order, &capture(order)).await, Verdict::Done));
        world.told(order, told).await;
    }
    assert_eq!(world.sandbox(order).await.unwrap(), ("approved".to_owned(), AMOUNT, 0, 1));
    for told in 5..=6 {
        assert!(matches!(world.deliver(order, &refund(order, AMOUNT)).await, Verdict::Done));
        world.told(order, told).await;
    }
    assert_eq!(world.sandbox(order).await.unwrap(), ("approved".to_owned(), AMOUNT, AMOUNT, 1));
    let told = world.told(order, 6).await;
    let (captured, refunded) = ("PaymentCaptured", "PaymentRefunded");
    assert_eq!(told, ["PaymentAuthorized", captured, captured, captured, refunded, refunded]);
    assert_eq!(world.settled(order).await, "refunded");
}

#[tokio::test]
async fn a_void_overtakes_an_authorization_under_way() {
    let world = World::new("pay_overtake").await;
    world.start_worker();
    let order = OrderId::generate();
    // Slow enough for a busy machine to come before it with the void.
    world.deliver(order, &authorize(order, "tok_slow_4000")).await;
    // The worker has taken it: the provider is being asked now.
    waybill_testkit::eventually(REPLY_TIMEOUT, async || {
        let taken: bool = sqlx::query_scalar("select tries > 0 from payments where order_id = $1")
            .bind(order.as_uuid())
            .fetch_one(&world.database.pool)
            .await
            .unwrap();
        taken.then_some(())
    })
    .await;
    world.deliver(order, &void(order)).await;
    assert_eq!(world.told(order, 1).await, ["PaymentVoided"]);
    assert_eq!(world.settled(order).await, "voided");
    // The slow authorization arrives after its void: the provider declines it.
    let late = waybill_testkit::eventually(REPLY_TIMEOUT, async || {
        world.sandbox(order).await.filter(|(_, _, _, calls)| *calls > 0)
    })
    .await;
    assert_eq!(late.0, "voided", "nothing is held");
    assert_eq!(world.told(order, 1).await, ["PaymentVoided"], "and nothing more is told");
}

/// The provider goes on with what the worker no longer waits for, and asking again finds it.
#[tokio::test]
async fn a_call_slower_than_the_workers_patience_still_lands() {
    let world = World::new("pay_impatient").await;
    world.start_worker_with(Duration::from_millis(100));
    let order = OrderId::generate();
    world.deliver(order, &authorize(order, "tok_slow_3000")).await;
    assert_eq!(world.told(order, 1).await, ["PaymentAuthorized"]);
    let (state, _, _, calls) = world.sandbox(order).await.unwrap();
    assert_eq!((state.as_str(), calls), ("approved", 1), "asked again and again, paid once");
}

/// More slow payments than calls may be out at a time: the others do not wait for them.
#[tokio::test]
async fn slow_payments_do_not_hold_up_the_others() {
    let world = World::new("pay_starving").await;
    let slow: Vec<OrderId> = (0..80).map(|_| OrderId::generate()).collect();
    for order in &slow {
        world.deliver(*order, &authorize(*order, "tok_slow_60000")).await;
    }
    let quick = OrderId::generate();
    world.deliver(quick, &authorize(quick, "tok_approve")).await;
    // So patient that no slow call makes room by being given up.
    world.start_worker_with(2 * REPLY_TIMEOUT);
    assert_eq!(world.told(quick, 1).await, ["PaymentAuthorized"]);
    for order in slow {
        assert!(world.replies(order).await.is_empty(), "the slow ones are still out");
    }
}

#[tokio::test]
async fn a_worker_killed_after_the_call_asks_again_and_finds_what_it_did() {
    use waybill_payments::provider::{Provider as _, sandbox::Sandbox};
    use waybill_payments::store::payments::payments_take_due;

    let world = World::new("pay_killed").await;
    let order = OrderId::generate();
    world.deliver(order, &authorize(order, "tok_approve")).await;
    // What a worker does before it dies: it takes the work and calls; the outcome is recorded by nobody.
    let taken = payments_take_due(&world.pool(), 10, Duration::from_millis(1)).await.unwrap();
    let [kept] = taken.as_slice() else { panic!("one payment is due: {taken:?}") };
    let terms = kept.payment.terms.clone().unwrap();
    Sandbox::new(world.pool()).authorize(kept.payment.key, &terms).await.unwrap();
    world.start_worker();
    assert_eq!(world.told(order, 1).await, ["PaymentAuthorized"]);
    assert_eq!(world.sandbox(order).await.unwrap().3, 1, "the provider was called once");
}

#[tokio::test]
async fn work_is_taken_by_one_worker_at_a_time() {
    use waybill_payments::store::payments::payments_take_due;

    let world = World::new("pay_taken").await;
    for _ in 0..5 {
        let order = OrderId::generate();
        world.deliver(order, &authorize(order, "tok_approve")).await;
    }
    let claim = Duration::from_secs(60);
    let first = payments_take_due(&world.pool(), 3, claim).await.unwrap();
    let second = payments_take_due(&world.pool(), 10, claim).await.unwrap();
    let third = payments_take_due(&world.pool(), 10, claim).await.unwrap();
    assert_eq!((first.len(), second.len(), third.len()), (3, 2, 0));
}

#[tokio::test]
async fn what_does_not_follow_is_rejected_and_changes_nothing() {
    let world = World::new("pay_breaches").await;
    world.start_worker();
    let order = OrderId::generate();
    let class = |verdict| match verdict {
        Verdict::Retry { class, .. } | Verdict::Reject { class, .. } => class,
        Verdict::Done => "done",
    };
    assert_eq!(class(world.deliver(order, &capture(order)).await), "out_of_turn");
    assert_eq!(class(world.deliver(order, &refund(order, 1)).await), "out_of_turn");
    world.deliver(order, &authorize(order, "tok_approve")).await;
    world.told(order, 1).await;
    let mut other = authorize(order, "tok_approve");
    other.amount_minor += 1;
    assert_eq!(class(world.deliver(order, &other).await), "conflicting_command");
    world.deliver(order, &capture(order)).await;
    world.told(order, 2).await;
    assert_eq!(class(world.deliver(order, &void(order)).await), "out_of_turn");
    assert_eq!(class(world.deliver(order, &refund(order, AMOUNT + 1)).await), "refund_amount");
    assert_eq!(world.settled(order).await, "captured");
}

#[tokio::test]
async fn many_payments_are_each_told_once() {
    let world = World::new("pay_batch").await;
    world.start_worker();
    let orders: Vec<OrderId> = (0..200).map(|_| OrderId::generate()).collect();
    for order in &orders {
        world.deliver(*order, &authorize(*order, "tok_approve")).await;
    }
    for order in &orders {
        assert_eq!(world.told(*order, 1).await, ["PaymentAuthorized"]);
    }
}
