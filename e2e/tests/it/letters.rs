//! Messages that fail: some are retried in order and get through, some become dead letters, which an operator looks at and
//! replays; then every order ends as if nothing had been.

use std::time::Duration;

use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::System;

/// A share of the keys fails: the first twice and then no more, the others until they are replayed.
const SETTINGS: [(&str, &str); 2] = [
    ("WAYBILL_FAULTS", "ReserveStock:retry:2:30,CapturePayment:reject:1:40,StockReserved:reject:1:20"),
    ("WAYBILL_RETRY_DELAYS_MS", "300,600,900"),
];
const LOAD: Duration = Duration::from_secs(3);
const STEP_TIMEOUT: Duration = Duration::from_secs(150);
/// A replayed message lets its order go on to the next one that fails.
const REPLAYS_MAX: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_retried_and_replayed_ends_as_if_nothing_had_been() {
    let system = System::start_with("e2e_letters", &SETTINGS).await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    tokio::time::sleep(LOAD).await;
    let accepted = load.stop().await;
    settled(&system).await;
    invariants::hold_meanwhile(&system).await;
    let retried = invariants::count_in_all(&system, "select count(*) from inbox where hop > 0").await;
    let mut replays = 0;
    while invariants::count_in_all(&system, OPEN).await > 0 {
        replays += 1;
        assert!(replays <= REPLAYS_MAX, "replays bring new dead letters again and again");
        for verb in [
            &["dry-run", "--all"][..],
            &["replay", "--all"],
            &[
                "replay",
                "--all",
                "--without-ramp",
                "--rate",
                "500",
                "--apply",
                "--reason",
                "the fault is mended",
            ],
        ] {
            let (code, said) = system.operator(&[&["dead-letters"], verb].concat()).await;
            assert_eq!(code, Some(0), "{verb:?}: {said}");
        }
        settled(&system).await;
    }
    let letters = invariants::count_in_all(&system, "select count(*) from dead_letters").await;
    println!("{retried} retries got through, {letters} dead letters, {replays} replays");
    assert!(retried > 0 && letters > 0 && replays > 0);
    invariants::hold_beside(&system, &accepted, letters).await;
    assert_eq!(invariants::count_in_all(&system, "select count(*) from parked_keys").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_puts_on_a_retry_topic_by_hand_stops_no_outbox() {
    let system = System::start("e2e_by_hand").await;
    let shop = Shop::new(&system);
    load::stock_up(&shop).await;
    let first = shop.order(&[("tea", 1)], "tok_approve").await;
    shop.becomes(&first, "CONFIRMED").await;
    let commands = system.topics.read_to_end("inventory.commands", STEP_TIMEOUT).await;
    let real = commands.iter().find(|record| record.header("ce_type") == Some("ReserveStock")).unwrap();
    let headers: Vec<(&str, &[u8])> =
        real.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    // As a console tool sends an event again; and bytes that are nothing.
    let retries = "inventory.commands.inventory.retry.1";
    let (topics, key) = (&system.topics, real.key.as_deref());
    topics.produce(retries, key, &headers, real.payload.as_deref()).await;
    topics.produce(retries, Some(b"nothing"), &[], Some(b"nothing")).await;
    eventually_named("both to be dead letters", STEP_TIMEOUT, async || {
        (invariants::count_in_all(&system, OPEN).await == 2).then_some(())
    })
    .await;
    let second = shop.order(&[("tea", 1)], "tok_approve").await;
    shop.becomes(&second, "CONFIRMED").await;
    let mirrors = system.topics.read_to_end("inventory.commands.inventory.dlq", STEP_TIMEOUT).await;
    assert_eq!(mirrors.len(), 2, "on the topic that there is");

    let replay = ["dead-letters", "replay", "--all", "--apply", "--reason", "it was put there by hand"];
    let (code, said) = system.operator(&replay).await;
    assert_eq!(code, Some(3), "one of them could not be sent: {said}");
    settled(&system).await;
    let states = "select count(*) from dead_letters where state = 'resolved'";
    assert_eq!(
        invariants::count_in_all(&system, states).await,
        1,
        "the message, which had its effect long ago"
    );
    assert_eq!(invariants::count_in_all(&system, OPEN).await, 1, "what is no message is not sent again");
    let third = shop.order(&[("tea", 1)], "tok_approve").await;
    shop.becomes(&third, "CONFIRMED").await;
}

const OPEN: &str = "select count(*) from dead_letters where state in ('open', 'replaying')";

/// Waits until nothing is on its way through the retry topics, nor being drained, and every order has ended or waits for
/// somebody who is blocked.
pub(crate) async fn settled(system: &System) {
    let moving = "select (select count(*) from parked_keys where state <> 'blocked')
                       + (select count(*) from dead_letters where state = 'replaying')";
    eventually_named("retries and replays to come to their ends", STEP_TIMEOUT, async || {
        let blocked = invariants::count_in_all(system, "select count(*) from parked_keys where state = 'blocked'").await;
        let live: i64 = sqlx::query_scalar(
            "select count(distinct key) from saga_instances where status in ('running', 'compensating', 'stuck')",
        )
        .fetch_one(&system.orders_db.pool)
        .await
        .unwrap();
        (invariants::count_in_all(system, moving).await == 0 && live <= blocked).then_some(())
    })
    .await;
}
