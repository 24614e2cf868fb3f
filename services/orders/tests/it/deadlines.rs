//! Deadlines: no answer means the command again, then the way back, or past the pivot an operator.

use std::time::Duration;

use uuid::Uuid;
use waybill_orders::consumers::deadlines::OrdersFollow;
use waybill_orders::sagas::Patience;
use waybill_saga::sweeper::sweep;
use waybill_testkit::eventually;

use crate::participants::Say;
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(90);

/// How often [`hasty`] sagas send a command that nobody answers: two attempts and the last call.
pub(crate) const SENT: usize = 3;

pub(crate) fn hasty(saga_deadline: Duration) -> Patience {
    let step_deadline = Duration::from_millis(40);
    Patience { step_deadline, step_attempts_max: 2, retry_attempts_max: 2, saga_deadline }
}

impl World {
    /// Lets deadlines pass, with a relay that has published everything, until `done`.
    pub(crate) async fn sweep_until(&self, done: impl AsyncFn() -> bool) {
        let follow = OrdersFollow::new(self.context.clone());
        eventually(PATIENCE, async || {
            let published = "update outbox_relay set position_from = pg_current_snapshot()";
            sqlx::query(published).execute(self.pool()).await.unwrap();
            sweep(self.pool(), &self.context.sagas.place, "", &follow, None).await.unwrap();
            sweep(self.pool(), &self.context.sagas.cancel, "", &follow, None).await.unwrap();
            done().await.then_some(())
        })
        .await;
    }

    pub(crate) async fn said_count(&self, topic: &str, order: Uuid, kind: &str) -> usize {
        self.said(topic, order).await.iter().filter(|said| *said == kind).count()
    }
}

#[tokio::test]
async fn a_silent_inventory_is_asked_again_then_the_order_is_taken_back() {
    let world = World::patient("deadline_reserve", hasty(Duration::from_secs(600))).await;
    let order = world.place().await;
    world.sweep_until(async || world.said_count("inventory.commands", order, "ReleaseStock").await > 0).await;
    assert_eq!(world.said_count("inventory.commands", order, "ReserveStock").await, SENT);
    world.reply(order, &[Say::Reserved, Say::Released]).await;
    let rejected = ("REJECTED".to_owned(), Some("timed_out".to_owned()), 2);
    assert_eq!(world.standing(order).await, rejected);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_payment_in_doubt_is_voided() {
    let world = World::patient("deadline_authorize", hasty(Duration::from_secs(600))).await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved]).await;
    world.sweep_until(async || world.said_count("payments.commands", order, "VoidPayment").await > 0).await;
    // The answer comes after all, too late for the pivot.
    world.reply(order, &[Say::Authorized, Say::Voided, Say::Released]).await;
    assert_eq!(world.standing(order).await.1.as_deref(), Some("timed_out"));
    world.assert_sound().await;
}

#[tokio::test]
async fn an_order_that_takes_too_long_as_a_whole_is_taken_back() {
    let patience = Patience { step_attempts_max: 100, ..hasty(Duration::from_millis(100)) };
    let world = World::patient("deadline_whole", patience).await;
    let order = world.place().await;
    world.sweep_until(async || world.said_count("inventory.commands", order, "ReleaseStock").await > 0).await;
    world.reply(order, &[Say::Released]).await;
    assert_eq!(world.standing(order).await.1.as_deref(), Some("timed_out"));
    world.assert_sound().await;
}

#[tokio::test]
async fn nothing_fires_while_the_relay_is_behind() {
    let world = World::patient("deadline_relay", hasty(Duration::from_millis(40))).await;
    let order = world.place().await;
    let follow = OrdersFollow::new(world.context.clone());
    let looked =
        "select count(*) from saga_instances where looked_at > created_at + interval '200 milliseconds'";
    eventually(PATIENCE, async || {
        assert_eq!(
            sweep(world.pool(), &world.context.sagas.place, "", &follow, None).await.unwrap().fired,
            0
        );
        (world.count(looked).await == 1).then_some(())
    })
    .await;
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock"]);
}

#[tokio::test]
async fn past_the_pivot_silence_ends_at_an_operator_and_a_late_reply_frees_it() {
    let world = World::patient("deadline_capture", hasty(Duration::from_secs(600))).await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Authorized]).await;
    let stuck = "select count(*) from saga_instances where status = 'stuck'";
    world.sweep_until(async || world.count(stuck).await == 1).await;
    assert_eq!(world.said_count("payments.commands", order, "CapturePayment").await, SENT);
    assert_eq!(world.standing(order).await.0, "CONFIRMED");
    // A cancel waits for the end of place-order.
    assert_eq!(world.cancel(order).await.status, 202);
    world.reply(order, &[Say::Captured, Say::Committed, Say::Refunded, Say::Restocked]).await;
    assert_eq!(world.standing(order).await.0, "CANCELLED");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_refund_without_an_answer_is_asked_for_again() {
    let world = World::patient("deadline_refund", hasty(Duration::from_secs(600))).await;
    let order = world.place().await;
    world.reply(order, &[Say::Reserved, Say::Authorized, Say::Captured, Say::Committed]).await;
    assert_eq!(world.cancel(order).await.status, 202);
    world
        .sweep_until(async || world.said_count("payments.commands", order, "RefundPayment").await == 2)
        .await;
    world.reply(order, &[Say::Refunded, Say::Restocked]).await;
    assert_eq!(world.standing(order).await.0, "CANCELLED");
    world.assert_sound().await;
}
