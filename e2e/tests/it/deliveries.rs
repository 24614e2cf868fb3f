//! Messages delivered again, after everybody has forgotten them, and too late: nothing changes by it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use waybill_testkit::OwnedRecord;

use crate::faults::HASTY;
use crate::invariants;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::System;

/// Topics that somebody reads.
const READ: [&str; 4] = ["inventory.commands", "inventory.events", "payments.commands", "payments.events"];
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// How often every record is repeated while orders come in.
const REPEATS: usize = 3;
/// How long a participant stands still: longer than hasty sagas wait for it, shorter than its group does (6 s).
const STANDSTILL: Duration = Duration::from_millis(5_200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_change_nothing_even_when_the_inbox_has_forgotten() {
    let system = System::start("e2e_repeats").await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    for _ in 0..REPEATS {
        tokio::time::sleep(Duration::from_millis(700)).await;
        repeat_everything(&system).await;
        invariants::hold_meanwhile(&system).await;
    }
    let accepted = load.stop().await;
    invariants::hold(&system, &accepted).await;
    let before = effects(&system).await;

    for database in system.databases() {
        sqlx::query("truncate inbox").execute(&database.pool).await.unwrap();
    }
    let repeated = repeat_everything(&system).await;
    invariants::hold(&system, &accepted).await;
    let after = effects(&system).await;
    assert!(before == after, "{repeated} repeats had effects: {:?}", differences(&before, &after));
}

/// Produces every record of every topic that is read once more: the same id, key, headers and bytes. Returns how many.
pub(crate) async fn repeat_everything(system: &System) -> usize {
    let one = async |topic: &'static str| {
        let mut records = system.topics.read_to_end(topic, READ_TIMEOUT).await;
        let mut seen = BTreeSet::new();
        records.retain(|record| seen.insert(record.header("ce_id").unwrap().to_owned()));
        for record in &records {
            again(system, topic, record).await;
        }
        records.len()
    };
    join_all(READ.map(one)).await.into_iter().sum()
}

pub(crate) async fn again(system: &System, topic: &str, record: &OwnedRecord) {
    let headers: Vec<(&str, &[u8])> =
        record.headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let at = system.topics.produce(topic, record.key.as_deref(), &headers, record.payload.as_deref()).await;
    assert_eq!(at.0, record.partition, "a key has one partition");
}

/// Everything that messages have effects on, but for counters of replies.
async fn effects(system: &System) -> BTreeSet<String> {
    let [orders, inventory, payments] = system.databases();
    let mut effects = BTreeSet::new();
    for (database, question) in [
        (orders, "select concat_ws(' ', 'order', id, status, reason, total_minor, version) from orders"),
        (orders, "select concat_ws(' ', 'saga', saga, key, status, state) from saga_instances"),
        (orders, "select concat_ws(' ', 'price', sku, unit_price_minor, currency, version) from catalogue"),
        (inventory, "select concat_ws(' ', 'stock', sku, available, reserved, shipped) from stock"),
        (inventory, "select concat_ws(' ', 'moved', source_id, sku, kind, quantity) from stock_ledger"),
        (
            inventory,
            "select concat_ws(' ', 'reservation', order_id, state, lines, refusal) from reservations",
        ),
        (
            payments,
            "select concat_ws(' ', 'payment', order_id, attempt, state, captured_minor, refunded_minor) from payments",
        ),
        (
            payments,
            "select concat_ws(' ', 'provider', key, state, captured_minor, refunded_minor) from sandbox_authorizations",
        ),
    ] {
        let rows: Vec<String> = sqlx::query_scalar(question).fetch_all(&database.pool).await.unwrap();
        effects.extend(rows);
    }
    effects
}

fn differences<'a>(before: &'a BTreeSet<String>, after: &'a BTreeSet<String>) -> Vec<&'a String> {
    before.symmetric_difference(after).take(20).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_too_late_are_taken_back() {
    let system = System::start_with("e2e_late", &HASTY).await;
    let shop = Shop::new(&system);
    load::stock_up(&shop).await;
    let load = Load::start(&system, load::seed());
    // Authorized by the provider long after the saga has turned back: nothing may stay on the customer's card.
    for _ in 0..10 {
        shop.order(&[("tea", 1)], "tok_slow_7000").await;
    }
    for participant in [&system.inventory, &system.payments] {
        participant.sigstop().await;
        tokio::time::sleep(STANDSTILL).await;
        participant.sigcont().await;
    }
    let mut accepted = load.stop().await;
    accepted.extend(shop.accepted());
    invariants::hold(&system, &accepted).await;
    let (timed_out, ignored): (i64, i64) = sqlx::query_as(
        "select (select count(*) from orders where reason like '%timed_out%'),
                (select count(*) from saga_log where entry->>'ignored' is not null)",
    )
    .fetch_one(&system.orders_db.pool)
    .await
    .unwrap();
    println!("{timed_out} orders timed out, {ignored} answers were ignored");
    assert!(
        timed_out > 0 && ignored > 0,
        "sagas turned back, and late answers met them: {timed_out}, {ignored}"
    );
}
