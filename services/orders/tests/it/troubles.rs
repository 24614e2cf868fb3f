//! Every command of both sagas, in trouble: answered late and twice, failing once, never answered; and a cancel at every point.

use std::time::Duration;

use uuid::Uuid;
use waybill_host::operator::SagaDesk as _;
use waybill_orders::http::saga_desk::OrderSagas;
use waybill_outbox::operate::Change;
use waybill_saga::{self as saga, Status, Verb};

use crate::deadlines::{SENT, hasty};
use crate::participants::{Participants, Say};
use crate::world::World;

/// Whole sagas have time: it is their steps that do not.
const LONG: Duration = Duration::from_secs(600);
const WELL: [Say; 4] = [Say::Reserved, Say::Authorized, Say::Captured, Say::Committed];

/// A saga that waits for the answer to one command.
struct Waiting {
    saga: &'static str,
    topic: &'static str,
    command: &'static str,
    /// What was answered before; the customer's cancel comes after `cancel_after` of them.
    before: &'static [Say],
    cancel_after: Option<usize>,
    /// What is answered from here on, and how the order ends.
    rest: &'static [Say],
    end: &'static str,
}

const STOCK: &str = "inventory.commands";
const MONEY: &str = "payments.commands";

/// Acts before the pivot: they are given up after some attempts, and the saga turns back.
const BEFORE: [Waiting; 2] = [
    waiting("place-order", STOCK, "ReserveStock", &[], None, &WELL, "CONFIRMED"),
    waiting(
        "place-order",
        MONEY,
        "AuthorizePayment",
        &[Say::Reserved],
        None,
        &[Say::Authorized, Say::Captured, Say::Committed],
        "CONFIRMED",
    ),
];

/// Acts that must succeed, and compensations: they are never given up, but by an operator.
const MUST: [Waiting; 7] = [
    waiting(
        "place-order",
        MONEY,
        "CapturePayment",
        &[Say::Reserved, Say::Authorized],
        None,
        &[Say::Captured, Say::Committed],
        "CONFIRMED",
    ),
    waiting(
        "place-order",
        STOCK,
        "CommitStock",
        &[Say::Reserved, Say::Authorized, Say::Captured],
        None,
        &[Say::Committed],
        "CONFIRMED",
    ),
    waiting(
        "place-order",
        STOCK,
        "ReleaseStock",
        &[Say::Reserved, Say::Declined],
        None,
        &[Say::Released],
        "REJECTED",
    ),
    waiting(
        "place-order",
        MONEY,
        "VoidPayment",
        &[Say::Reserved],
        Some(1),
        &[Say::Voided, Say::Released],
        "CANCELLED",
    ),
    waiting(
        "place-order",
        STOCK,
        "ReleaseStock",
        &[Say::Reserved, Say::Voided],
        Some(1),
        &[Say::Released],
        "CANCELLED",
    ),
    waiting(
        "cancel-order",
        MONEY,
        "RefundPayment",
        &WELL,
        Some(4),
        &[Say::Refunded, Say::Restocked],
        "CANCELLED",
    ),
    waiting(
        "cancel-order",
        STOCK,
        "RestockOrder",
        &[Say::Reserved, Say::Authorized, Say::Captured, Say::Committed, Say::Refunded],
        Some(4),
        &[Say::Restocked],
        "CANCELLED",
    ),
];

const fn waiting(
    saga: &'static str,
    topic: &'static str,
    command: &'static str,
    before: &'static [Say],
    cancel_after: Option<usize>,
    rest: &'static [Say],
    end: &'static str,
) -> Waiting {
    Waiting { saga, topic, command, before, cancel_after, rest, end }
}

impl Waiting {
    /// A new order that has come this far.
    async fn reach(&self, world: &World) -> Uuid {
        let order = world.place().await;
        for (place, say) in self.before.iter().enumerate() {
            if self.cancel_after == Some(place) {
                assert_eq!(world.cancel(order).await.status, 202);
            }
            world.reply(order, &[*say]).await;
        }
        if self.cancel_after == Some(self.before.len()) {
            assert_eq!(world.cancel(order).await.status, 202);
        }
        assert_eq!(self.asked(world, order).await, 1, "{} is waited for", self.command);
        order
    }

    async fn asked(&self, world: &World, order: Uuid) -> usize {
        world.said_count(self.topic, order, self.command).await
    }

    /// The answers that are left, each twice; then the end.
    async fn end(&self, world: &World, order: Uuid, rest: &[Say], what: &str) {
        for say in rest {
            world.reply(order, &[*say, *say]).await;
        }
        assert_eq!(world.standing(order).await.0, self.end, "{what}: {}", self.command);
        let open = "select count(*) from saga_instances where status not in ('completed', 'compensated', 'abandoned')";
        assert_eq!(world.count(open).await, 0, "{what}: {} leaves no saga open", self.command);
        world.assert_sound().await;
    }
}

#[tokio::test]
async fn each_command_may_be_answered_late_and_twice() {
    let world = World::patient("troubles_late", hasty(LONG)).await;
    for case in BEFORE.iter().chain(&MUST) {
        let order = case.reach(&world).await;
        world.sweep_until(async || case.asked(&world, order).await == 2).await;
        case.end(&world, order, case.rest, "asked again").await;
    }
}

#[tokio::test]
async fn each_command_that_payments_gives_up_once_is_sent_again() {
    let world = World::patient("troubles_failing", hasty(LONG)).await;
    for (command, operation) in
        [("CapturePayment", "capture"), ("VoidPayment", "void"), ("RefundPayment", "refund")]
    {
        let case = MUST.iter().find(|case| case.command == command).unwrap();
        let order = case.reach(&world).await;
        world.reply(order, &[Say::Failed(operation)]).await;
        world.sweep_until(async || case.asked(&world, order).await == 2).await;
        case.end(&world, order, case.rest, "failed once").await;
    }
}

/// Payments says each time that it can not: after the last attempt an operator is called, and is told why.
#[tokio::test]
async fn each_command_that_payments_gives_up_always_waits_for_an_operator_until_it_succeeds() {
    let world = World::patient("troubles_given_up", hasty(LONG)).await;
    for (command, operation) in
        [("CapturePayment", "capture"), ("VoidPayment", "void"), ("RefundPayment", "refund")]
    {
        let case = MUST.iter().find(|case| case.command == command).unwrap();
        let order = case.reach(&world).await;
        let before = world.standing(order).await;
        world.reply(order, &[Say::Failed(operation)]).await;
        world.sweep_until(async || case.asked(&world, order).await == 2).await;
        world.reply(order, &[Say::Failed(operation), Say::Failed(operation)]).await;
        let stuck = saga::operate::show(world.pool(), case.saga, order).await.unwrap().saga;
        assert_eq!((stuck.status, stuck.stuck_why.as_deref()), (Status::Stuck, Some("payment_failed")));
        assert_eq!((case.asked(&world, order).await, world.standing(order).await), (2, before), "{command}");
        // What succeeds after all frees it without an operator.
        case.end(&world, order, case.rest, "given up always").await;
    }
}

#[tokio::test]
async fn each_act_that_is_never_answered_is_taken_back() {
    let world = World::patient("troubles_silent", hasty(LONG)).await;
    let back: [(&Waiting, &str, &[Say]); 2] = [
        (&BEFORE[0], "ReleaseStock", &[Say::Released]),
        (&BEFORE[1], "VoidPayment", &[Say::Voided, Say::Released]),
    ];
    for (case, first_back, rest) in back {
        let order = case.reach(&world).await;
        let topic = case.topic;
        world.sweep_until(async || world.said_count(topic, order, first_back).await == 1).await;
        for say in rest {
            world.reply(order, &[*say, *say]).await;
        }
        let rejected = ("REJECTED".to_owned(), Some("timed_out".to_owned()), 2);
        assert_eq!(world.standing(order).await, rejected, "{}", case.command);
        world.assert_sound().await;
    }
}

#[tokio::test]
async fn each_command_that_must_succeed_and_never_does_waits_for_an_operator_and_each_verb_ends_it() {
    let world = World::patient("troubles_stuck", hasty(LONG)).await;
    let (desk, change) = (OrderSagas(world.context.clone()), Change::new("olga", "a test", None).unwrap());
    for case in &MUST {
        for verb in [Verb::Retry, Verb::Skip, Verb::Abandon] {
            let order = case.reach(&world).await;
            let stuck = "select count(*) from saga_instances where status = 'stuck'";
            world.sweep_until(async || world.count(stuck).await == 1).await;
            let view = desk.operate(case.saga, order, verb, &change).await.unwrap();
            let what = format!("{verb:?}");
            match verb {
                Verb::Retry => {
                    assert_eq!(
                        case.asked(&world, order).await,
                        SENT + 1,
                        "{what}: {} is sent again",
                        case.command
                    );
                    case.end(&world, order, case.rest, &what).await;
                }
                Verb::Skip => case.end(&world, order, &case.rest[1..], &what).await,
                _ => {
                    assert_eq!(view.status, Status::Abandoned, "{}", case.command);
                    let (status, ..) = world.standing(order).await;
                    let over = ["CONFIRMED", "REJECTED", "CANCELLED"].contains(&status.as_str());
                    assert!(over, "abandoned at {}: {status}", case.command);
                    // Whatever is answered now comes too late.
                    for say in case.rest {
                        world.reply(order, &[*say]).await;
                    }
                    assert_eq!(world.standing(order).await.0, status, "{}", case.command);
                    world.assert_sound().await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_cancel_at_every_point_of_the_saga_ends_in_a_cancelled_order() {
    let world = World::new("troubles_cancel").await;
    for answered in 0..=WELL.len() {
        let mut participants = Participants::default();
        let order = world.place().await;
        for say in &WELL[..answered] {
            world.reply(order, &[*say]).await;
        }
        assert_eq!(world.cancel(order).await.status, 202, "after {answered} answers");
        participants.run(&world).await;
        assert_eq!(world.standing(order).await.0, "CANCELLED", "after {answered} answers");
        world.assert_sound().await;
    }
}

/// A rolling deployment in the wrong order: this process does not know the version that a newer one has begun with.
#[tokio::test]
async fn a_reply_to_a_saga_of_a_newer_version_waits_and_stops_nobody() {
    let world = World::new("trouble_newer_version").await;
    let [newer, newer_too, known] = [world.place().await, world.place().await, world.place().await];
    let newer_version = "update saga_instances set version = 2 where key <> $1";
    sqlx::query(newer_version).bind(known).execute(world.pool()).await.unwrap();
    world.hear(&[newer, known, newer_too].map(|order| Say::Reserved.of(order))).await;
    assert_eq!(world.said("payments.commands", known).await, ["AuthorizePayment"]);
    for order in [newer, newer_too] {
        assert!(world.said("payments.commands", order).await.is_empty());
        assert_eq!(world.said("inventory.events.orders.retry.1", order).await, ["StockReserved"]);
    }
    let retrying = "select count(*) from parked_keys where state = 'retrying'";
    assert_eq!(world.count(retrying).await, 2);
    let told = "select count(*) from outbox where topic = 'inventory.events.orders.retry.1'
                and headers->>'retry_error_class' = 'unknown_version'";
    assert_eq!(world.count(told).await, 2);
    assert_eq!(world.count("select count(*) from dead_letters").await, 0);
}
