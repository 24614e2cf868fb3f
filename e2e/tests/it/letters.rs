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

const OPEN: &str = "select count(*) from dead_letters where state in ('open', 'replaying')";

/// Waits until nothing is on its way through the retry topics, nor being drained, and every order has ended or waits for
/// somebody who is blocked.
async fn settled(system: &System) {
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
