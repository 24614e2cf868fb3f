//! Who fills one pool leaves the others their connections, and connections that the network lost are given up.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use waybill_runtime::config::PoolBounds;
use waybill_testkit::eventually;

use crate::participants::Say;
use crate::world::{World, new_key, send, usual_order};

#[tokio::test]
async fn placements_that_fill_their_pool_leave_reads_and_the_consumer_theirs() {
    let world = World::bounded("pools", PoolBounds { writes: 2, reads: 1, background: 1 }).await;
    let placed = world.place().await;
    let before = world.count("select count(*) from orders").await;
    world.gate_close("insert").await;
    let keys = [new_key(), new_key()];
    let waiting = keys.clone().map(|key| {
        let post = world.customers(Method::POST, "/orders").header("Idempotency-Key", key);
        tokio::spawn(send(post.json(&usual_order())))
    });
    world.at_gate(2).await;

    let key = new_key();
    let refused = world.post(&key, &usual_order()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    assert!(refused.retry_after.is_some(), "{refused:?}");
    assert_eq!(world.get(&format!("/orders/{placed}")).await.status, StatusCode::OK, "reads stay up");
    assert_eq!(world.get("/orders").await.status, StatusCode::OK);
    world.hear(&[Say::Reserved.of(placed)]).await;
    assert_eq!(world.said("payments.commands", placed).await, ["AuthorizePayment"], "a message was handled");
    assert_eq!(world.cancel(placed).await.status, StatusCode::ACCEPTED, "an order can be cancelled");

    world.gate_open().await;
    for answer in waiting {
        answer.await.unwrap();
    }
    // Whoever was refused, or waited too long on a slow machine, tries again.
    for key in keys.iter().chain([&key]) {
        assert_eq!(world.post(key, &usual_order()).await.status, StatusCode::ACCEPTED);
    }
    assert_eq!(world.count("select count(*) from orders").await, before + 3);
    world.assert_sound().await;
}

/// Longer than a command is waited for; a connection that is not given up is missing for a quarter of an hour.
const GIVEN_UP: Duration = Duration::from_secs(180);

#[tokio::test]
async fn commands_whose_connections_the_network_lost_leave_their_pools_to_others() {
    let bounds = PoolBounds { writes: 1, reads: 1, background: 1 };
    let (world, switch) = World::switched("silent", bounds).await;
    let cancelled = world.place().await;
    world.gate_close("insert or update").await;
    let key = new_key();
    let post = world.customers(Method::POST, "/orders").header("Idempotency-Key", &key);
    let placing = tokio::spawn(send(post.json(&usual_order())));
    let cancelling =
        tokio::spawn(send(world.customers(Method::POST, &format!("/orders/{cancelled}/cancel"))));
    world.at_gate(2).await;
    // Their answers never come; the database is well.
    switch.fall_silent();
    world.gate_open().await;
    for lost in [placing, cancelling] {
        assert_eq!(lost.await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let placed = eventually(GIVEN_UP, async || {
        let answer = world.post(&key, &usual_order()).await;
        (answer.status == StatusCode::ACCEPTED).then_some(answer)
    })
    .await;
    assert!(placed.replayed, "it was written, and nobody knew");
    let accepted = async || (world.cancel(cancelled).await.status == StatusCode::ACCEPTED).then_some(());
    eventually(GIVEN_UP, accepted).await;
    assert_eq!(world.count("select count(*) from orders").await, 2);
    world.assert_sound().await;
}
