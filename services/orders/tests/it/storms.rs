//! Cancels, replies, repetitions and sweeps at the same time: whatever meets, every order ends, in step with its saga.

use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;
use waybill_testkit::Dice;

use crate::participants::{Participants, Say};
use crate::world::World;

const ORDERS: usize = 12;

/// What must hold when nothing is left to do.
async fn assert_all_ended(world: &World) {
    let open = "select count(*) from saga_instances where status not in ('completed', 'compensated')";
    assert_eq!(world.count(open).await, 0, "every saga ends");
    let wrong = "select count(*) from orders o
         join saga_instances p on p.key = o.id and p.saga = 'place-order'
         left join saga_instances c on c.key = o.id and c.saga = 'cancel-order'
         where not case o.status
             when 'CONFIRMED' then p.status = 'completed' and c.key is null
             when 'REJECTED'  then p.status = 'compensated' and c.key is null
             when 'CANCELLED' then (p.status = 'compensated' and c.key is null)
                                or (p.status = 'completed' and c.status = 'completed')
             else false end";
    assert_eq!(world.count(wrong).await, 0, "an order and its sagas disagree");
    world.assert_sound().await;
}

async fn placed(world: &World) -> Vec<Uuid> {
    join_all((0..ORDERS).map(|_| world.place())).await
}

#[tokio::test]
async fn a_cancel_meets_the_pivot() {
    let world = Arc::new(World::new("storm_pivot").await);
    let orders = placed(&world).await;
    let mut participants = Participants::default();
    let reserved = participants.replies(&world).await;
    world.hear(&reserved).await;
    let authorized = participants.replies(&world).await;
    let cancels = join_all(orders.iter().map(|order| world.cancel(*order)));
    let pivots = join_all(authorized.chunks(3).map(|batch| world.hear(batch)));
    let (cancelled, _) = tokio::join!(cancels, pivots);
    assert!(cancelled.iter().all(|answer| answer.status == 202), "{cancelled:?}");
    participants.run(&world).await;
    assert_eq!(world.count("select count(*) from orders where status = 'CANCELLED'").await, ORDERS as i64);
    assert_all_ended(&world).await;
}

/// Both wait for the saga's row, which its holder lets go; whoever came first has it first.
#[tokio::test]
async fn a_cancel_and_a_pivot_that_wait_for_one_saga_each_win_once() {
    let world = Arc::new(World::new("storm_first").await);
    let mut participants = Participants::default();
    for (cancel_first, history) in [
        (true, &["OrderPlaced", "OrderCancellationRequested", "OrderCancelled"][..]),
        (false, &["OrderPlaced", "OrderConfirmed", "OrderCancellationRequested", "OrderCancelled"]),
    ] {
        let order = world.place().await;
        let reserved = participants.replies(&world).await;
        world.hear(&reserved).await;
        let authorized = participants.replies(&world).await;
        let mut holder = world.database.pool.begin().await.unwrap();
        let hold = "select from saga_instances where key = $1 for update";
        sqlx::query(hold).bind(order).execute(&mut *holder).await.unwrap();
        let cancel = || {
            let world = Arc::clone(&world);
            tokio::spawn(async move { assert_eq!(world.cancel(order).await.status, 202) })
        };
        let pivot = || {
            let world = Arc::clone(&world);
            let authorized = authorized.clone();
            tokio::spawn(async move { world.hear(&authorized).await })
        };
        let first = if cancel_first { cancel() } else { pivot() };
        world.database.locks_waited_for(1).await;
        let second = if cancel_first { pivot() } else { cancel() };
        world.database.locks_waited_for(2).await;
        holder.rollback().await.unwrap();
        first.await.unwrap();
        second.await.unwrap();
        participants.run(&world).await;
        assert_eq!(world.said("orders.events", order).await, history);
    }
    assert_all_ended(&world).await;
}

#[tokio::test]
async fn a_cancel_meets_the_end_of_place_order() {
    let world = Arc::new(World::new("storm_end").await);
    let orders = placed(&world).await;
    let mut participants = Participants::default();
    for _ in 0..3 {
        let replies = participants.replies(&world).await;
        world.hear(&replies).await;
    }
    let committed = participants.replies(&world).await;
    assert_eq!(committed.len(), ORDERS, "what is left is CommitStock");
    let cancels = join_all(orders.iter().map(|order| world.cancel(*order)));
    let ends = join_all(committed.chunks(3).map(|batch| world.hear(batch)));
    let _ = tokio::join!(cancels, ends);
    participants.run(&world).await;
    assert_eq!(world.count("select count(*) from orders where status = 'CANCELLED'").await, ORDERS as i64);
    assert_all_ended(&world).await;
}

#[tokio::test]
async fn many_cancels_of_one_order_are_one() {
    let world = World::new("storm_cancels").await;
    let order = world.place().await;
    let answers = join_all((0..20).map(|_| world.cancel(order))).await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock", "ReleaseStock"]);
    Participants::default().run(&world).await;
    assert_eq!(world.standing(order).await.2, 3);
    assert_all_ended(&world).await;
}

#[tokio::test]
async fn whatever_order_things_come_in() {
    for seed in 1..=8 {
        let world = World::new("storm_random").await;
        let (mut dice, mut participants) = (Dice::new(seed), Participants::default());
        let orders = placed(&world).await;
        let mut told = Vec::new();
        for _ in 0..30 {
            let order = orders[dice.place(orders.len())];
            match dice.place(6) {
                0 => drop(world.cancel(order).await),
                1 => world.reply(order, &[Say::Rejected("insufficient_stock")]).await,
                2 => world.reply(order, &[Say::Declined]).await,
                // Something that was told before, once more, with its old id and with a new one.
                3 if !told.is_empty() => {
                    let again: &waybill_messaging::message::Message = &told[dice.place(told.len())];
                    let mut renewed = again.clone();
                    renewed.envelope.id = Uuid::now_v7();
                    world.hear(&[again.clone(), renewed]).await;
                }
                _ => {
                    let replies = participants.replies(&world).await;
                    world.hear(&replies).await;
                    told.extend(replies);
                }
            }
        }
        participants.run(&world).await;
        eprintln!("seed {seed}");
        assert_all_ended(&world).await;
    }
}
