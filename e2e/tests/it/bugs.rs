//! Programs with a bug planted, under load and faults: `waybillctl verify` sees what came of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use waybill_testkit::polling::eventually_named;

use crate::deliveries::repeat_everything;
use crate::faults::{HASTY, killed_at};
use crate::load::{self, Load};
use crate::overtaking::overtaken;
use crate::shop::Shop;
use crate::system::{Service, System};

/// Longest wait until what the bug did has settled and is seen.
const SEEN_TIMEOUT: Duration = Duration::from_secs(150);
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How often payments stands still.
const STANDSTILLS: usize = 3;
/// Above the interval in which a consumer commits what it has stored.
const COMMITTED: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_row_that_is_dropped_is_seen() {
    let mut system = with_bug("inbox_row_dropped").await;
    let load = Load::start(&system, load::seed());
    tokio::time::sleep(COMMITTED).await;
    system.inventory.kill9().await;
    System::restart(&mut system.inventory).await;
    repeat_everything(&system).await;
    load.stop().await;
    seen(&system, "inboxes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_is_stored_early_is_seen() {
    let mut system = with_bug("offset_stored_early").await;
    let load = Load::start(&system, load::seed());
    // The batch's offsets are committed while its transaction waits for the table.
    killed_at(&mut system, Service::Payments, "lock table payments in exclusive mode", COMMITTED).await;
    system.all_ready().await;
    load.stop().await;
    seen(&system, "inboxes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_natural_key_that_is_missing_is_seen() {
    let system = with_bug("natural_key_missing").await;
    let load = Load::start(&system, load::seed());
    for _ in 0..STANDSTILLS {
        // The sagas ask again, under new ids, which no inbox knows; both are answered as soon as one has.
        let before = asked_again(&system).await;
        system.payments.sigstop().await;
        eventually_named("an authorization to be asked for again", SEEN_TIMEOUT, async || {
            (asked_again(&system).await > before).then_some(())
        })
        .await;
        system.payments.sigcont().await;
    }
    load.stop().await;
    seen(&system, "books").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_that_is_skipped_is_seen() {
    let mut system = with_bug("tombstone_skipped").await;
    let load = Load::start(&system, load::seed());
    tokio::time::sleep(COMMITTED).await;
    load.stop().await;
    overtaken(&mut system).await;
    seen(&system, "books").await;
}

/// The two files with the guards, by themselves and as a release build would have them.
#[test]
fn a_release_build_refuses_what_is_for_tests() {
    for (feature, file) in [("planted", "planted.rs"), ("failpoints", "failpoints.rs")] {
        for (assertions, refused) in [("off", true), ("on", false)] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/runtime/src").join(file);
            let mut compile = Command::new("rustc");
            compile.args([
                "--edition",
                "2024",
                "--crate-type",
                "lib",
                "--emit",
                "metadata",
                "-o",
                "/dev/null",
            ]);
            compile.args([
                "--cfg",
                &format!("feature=\"{feature}\""),
                "-C",
                &format!("debug-assertions={assertions}"),
            ]);
            let said = compile.arg(source).output().unwrap();
            let said = String::from_utf8_lossy(&said.stderr);
            let told = format!("the feature `{feature}`");
            let guard = said.contains(&told) && said.contains("a release build must not have it");
            assert_eq!(guard, refused, "{feature} with debug assertions {assertions}: {said}");
        }
    }
}

/// How many orders' authorizations were asked for more than once.
async fn asked_again(system: &System) -> i64 {
    let orders = "select count(*) from (select key from outbox where headers->>'ce_type' = 'AuthorizePayment'
                  group by key having count(*) > 1) again";
    sqlx::query_scalar(orders).fetch_one(&system.orders_db.pool).await.unwrap()
}

async fn with_bug(name: &'static str) -> System {
    let settings = [&HASTY[..], &[("WAYBILL_PLANTED_BUG", name)]].concat();
    let system = System::start_with(&format!("e2e_bug_{name}"), &settings).await;
    load::stock_up(&Shop::new(&system)).await;
    let told = system.orders.output() + &system.inventory.output() + &system.payments.output();
    assert!(
        told.contains("has a bug on purpose"),
        "the programs were built without the feature `planted` of waybill-runtime: run `cargo xtask test`"
    );
    system
}

/// Looks until the promise of this name is seen to be broken.
async fn seen(system: &System, promise: &str) {
    let started = Instant::now();
    loop {
        let verified = system.verify().await;
        assert_ne!(verified.code, Some(1), "verify could not look: {}", verified.output);
        let checks = verified.report["checks"].as_array().unwrap();
        let broken = checks.iter().filter(|check| check["violations"] != 0);
        let broken: BTreeSet<&str> = broken.map(|check| check["name"].as_str().unwrap()).collect();
        if broken.contains(promise) {
            assert_eq!(verified.code, Some(3));
            println!("seen as {broken:?} after {:?}", started.elapsed());
            return;
        }
        assert!(started.elapsed() < SEEN_TIMEOUT, "not seen: {}", verified.output);
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
