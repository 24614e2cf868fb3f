//! Services whose clocks are two hours wrong: deadlines and the waits of retries are the database's, so nothing changes but
//! times that are told.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::faults::HASTY;
use crate::invariants;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::{Service, Special, System};

/// Orders placed until one is confirmed at last.
const ORDERS_MAX: usize = 20;
/// How long orders come in.
const UNDISTURBED: Duration = Duration::from_secs(3);
/// How far a clock is off at least, in seconds, when the library works.
const OFF_S_MIN: f64 = 7_000.0;
/// What hasty sagas give a step.
const STEP_DEADLINE_S: f64 = 1.5;
/// Messages of a share of the orders are retried once, after a second.
const RETRIED: [(&str, &str); 2] = [
    ("WAYBILL_FAULTS", "StockReserved:retry:1:40,AuthorizePayment:retry:1:40"),
    ("WAYBILL_RETRY_DELAYS_MS", "1000"),
];
/// The delay of those.
const RETRY_DELAY_S: f64 = 1.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_two_hours_off_move_no_deadline() {
    let mut special = Special::default();
    let timedwait = timedwait().await;
    for (service, off) in [(Service::Orders, "-2h"), (Service::Payments, "+2h")] {
        let libraries = format!("{}:{}", timedwait.display(), libfaketime().display());
        special.of_service.extend([
            (service, "LD_PRELOAD", libraries),
            (service, "FAKETIME", off.to_owned()),
            (service, "FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]);
    }
    let settings = [&HASTY[..], &RETRIED[..]].concat();
    let system = System::start_special("e2e_clocks", &settings, special).await;
    let shop = Shop::new(&system);
    load::stock_up(&shop).await;
    one_is_confirmed(&shop).await;
    let load = Load::start(&system, load::seed());
    // Answered by the provider long after hasty sagas have lost their patience for the first time.
    for _ in 0..3 {
        shop.order(&[("tea", 1)], "tok_slow_9000").await;
    }
    tokio::time::sleep(UNDISTURBED).await;
    let mut accepted = load.stop().await;
    accepted.extend(shop.accepted());
    invariants::hold(&system, &accepted).await;
    let (off, confirmed, deadlines, earliest): (f64, i64, i64, f64) = sqlx::query_as(
        "select (select min(extract(epoch from created_at - (headers->>'ce_time')::timestamptz))::float8 from outbox
                 where topic like '%orders.events'),
                (select count(*) from orders where status = 'CONFIRMED'),
                (select count(*) from saga_log where entry->>'input' = 'deadline'),
                (select coalesce(min(extract(epoch from at - began)), 0)::float8
                 from (select at, entry, lag(at) over story as began, lag(entry::text) over story as before
                       from saga_log where entry->>'ignored' is null
                       window story as (partition by saga, key order by number)) l
                 -- The end of a back-off is told in the same word.
                 where entry->>'input' = 'deadline' and before not like '%deadline%' and before not like '%failed%')",
    )
    .fetch_one(&system.orders_db.pool)
    .await
    .unwrap();
    println!(
        "orders' clock is {off:.0} s late; {confirmed} orders confirmed, {deadlines} deadlines passed, the first of a step \
         after {earliest:.3} s at the earliest"
    );
    assert!(off > OFF_S_MIN, "the clock of orders is off: {off}");
    assert!(confirmed > 0, "deadlines do not come two hours early");
    assert!(deadlines > 0, "nor two hours late");
    assert!(earliest >= STEP_DEADLINE_S, "nor a moment early: {earliest}");
    for service in [Service::Orders, Service::Payments] {
        let (retried, shortest) = retries(&system, service).await;
        println!("{}: {retried} messages were retried, the first after {shortest:.3} s", service.name());
        assert!(retried > 0 && shortest >= RETRY_DELAY_S, "{}: {retried}, {shortest}", service.name());
    }
}

/// Hasty sagas may give up while the machine is busy.
async fn one_is_confirmed(shop: &Shop<'_>) {
    for _ in 0..ORDERS_MAX {
        let order = shop.order(&[("tea", 1)], "tok_approve").await;
        if shop.decided(&order).await == "CONFIRMED" {
            return;
        }
    }
    panic!("none of {ORDERS_MAX} orders was confirmed");
}

/// How many messages were retried, and the shortest wait for it, by the service's database.
async fn retries(system: &System, service: Service) -> (i64, f64) {
    sqlx::query_as(
        "select count(*), coalesce(min(extract(epoch from again.received_at - first.received_at)), 0)::float8
         from inbox first join inbox again using (consumer_group, message_id) where first.hop = 0 and again.hop = 1",
    )
    .fetch_one(&system.database(service).pool)
    .await
    .unwrap()
}

/// The library that gives a program another clock.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let inside = folders.filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    let mut found = inside.filter(|path| path.exists());
    found
        .next()
        .expect("this test needs libfaketime: install Debian's package `faketime`, or run `cargo xtask test`")
}

/// What libfaketime lacks, compiled.
async fn timedwait() -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clocks_timedwait.c");
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clocks_timedwait.so");
    let mut cc = Command::new("cc");
    let compiled = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status().await;
    assert!(compiled.expect("a C compiler").success(), "{source} does not compile");
    library
}
