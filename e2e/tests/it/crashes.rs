//! Services killed between any two statements of a transaction: real processes that end themselves by SIGKILL at named places.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use crate::faults::HASTY;
use crate::invariants;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::{Service, System};

/// A batch of replies: `begin`, inbox, sagas loaded, saved with their log, outbox, `commit`, offsets. Each place lies
/// between two of them; the second time it is come to, so that a batch has gone well before.
const BATCH: [&str; 5] =
    ["batch_taken:2", "saga_loaded:2", "saga_saved:2", "batch_said:2", "batch_committed:2"];
/// A sweep of deadlines: taken, sagas loaded and saved (as above), outbox, `commit`.
const SWEEP: [&str; 3] = ["deadlines_taken", "deadlines_said", "deadlines_committed"];
/// Longest wait for a process to come to its place: it starts, joins its group beside others that die, gets partitions.
const CRASH_TIMEOUT: Duration = Duration::from_secs(120);
/// Orders whose provider answers later than hasty sagas wait: each lets deadlines fire.
const SLOW_AT_ONCE: usize = 8;
/// Pause until the next of them.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_may_die_between_any_two_statements_of_a_batch_of_replies() {
    let system = System::start("e2e_crash_batch").await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    crash_at(&system, Service::Orders, &BATCH).await;
    invariants::hold(&system, &load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_may_die_between_any_two_statements_of_a_sweep_of_deadlines() {
    let system = System::start_with("e2e_crash_sweep", &HASTY).await;
    let shop = Shop::new(&system);
    load::stock_up(&shop).await;
    let load = Load::start(&system, load::seed());
    let crashed = AtomicBool::new(false);
    let crashes = async {
        for place in SWEEP {
            crash_at(&system, Service::Orders, &[place]).await;
        }
        crashed.store(true, Ordering::Relaxed);
    };
    let slow = async {
        while !crashed.load(Ordering::Relaxed) {
            join_all((0..SLOW_AT_ONCE).map(|_| shop.order(&[("tea", 1)], "tok_slow_4000"))).await;
            tokio::time::sleep(SLOW_PAUSE).await;
        }
    };
    tokio::join!(crashes, slow);
    let mut accepted = load.stop().await;
    accepted.extend(shop.accepted());
    invariants::hold(&system, &accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_may_die_before_inside_and_after_the_commit_of_a_batch() {
    let system = System::start("e2e_crash_participants").await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    let places = [BATCH[0], BATCH[3], BATCH[4]];
    tokio::join!(
        crash_at(&system, Service::Inventory, &places),
        crash_at(&system, Service::Payments, &places)
    );
    invariants::hold(&system, &load.stop().await).await;
}

/// One more member of the group for each place, all at once; each dies there, and what it held goes to those who live.
async fn crash_at(system: &System, service: Service, places: &[&str]) {
    let crash = async |place: &&str| {
        let mut member = system.member_that_crashes(service, place);
        let ended = member.wait_exit(CRASH_TIMEOUT).await;
        assert_eq!(ended, None, "{place}: a signal ends it:\n{}", member.output());
        println!("{} killed at {place}", service.name());
    };
    join_all(places.iter().map(crash)).await;
}
