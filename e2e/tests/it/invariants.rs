//! What must be true when all has come to rest, whatever happened before: every story ends with [`hold`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use waybill_testkit::TestDatabase;
use waybill_testkit::polling::eventually_named;

use crate::journal::Accepted;
use crate::system::{Service, System};

/// Longest wait until all has come to rest: a payment whose worker was killed comes up again after 30 s, leases and
/// group members have to run out first, and the machine may be busy.
const REST_TIMEOUT: Duration = Duration::from_secs(240);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// What verify leaves unjudged while a system moves, by words of its reasons.
const MOVES: [&str; 6] =
    ["under way", "being asked", "changed while", "younger than", "not published yet", "not read yet"];
/// How many of the journal's keys are asked again.
const KEYS_ASKED_AGAIN: usize = 12;

/// Waits until the system is at rest and holds everything promised against its databases and topics.
///
/// # Panics
/// When a promise is broken, or the system does not come to rest.
pub(crate) async fn hold(system: &System, accepted: &[Accepted]) {
    hold_beside(system, accepted, 0).await;
}

/// [`hold`] for a system into which records were put that must have become this many dead letters.
pub(crate) async fn hold_beside(system: &System, accepted: &[Accepted], dead_letters: i64) {
    at_rest(system).await;
    hold_now(system, accepted, dead_letters).await;
}

/// [`hold`] for a system in which commands fail on purpose, those that are sent again too: nobody can say how many dead letters
/// that makes. They are told, and what they must be is still held.
pub(crate) async fn hold_whatever_failed(system: &System, accepted: &[Accepted]) {
    at_rest(system).await;
    verified(system).await;
    journal(system, accepted).await;
    transactions_closed(system).await;
}

/// [`hold_beside`] without waiting: the system is at rest already, or that is a broken promise too.
async fn hold_now(system: &System, accepted: &[Accepted], dead_letters: i64) {
    assert_eq!(unrest(system).await, None);
    let letters = count_in_all(system, "select count(*) from dead_letters").await;
    assert_eq!(letters, dead_letters, "dead letters: {:?}", dead_letters_told(system).await);
    // Before the journal asks its keys again: one that was lost would become a new order.
    verified(system).await;
    journal(system, accepted).await;
    transactions_closed(system).await;
}

/// `waybillctl verify` at the end of a story: it has judged everything, and everything holds.
async fn verified(system: &System) {
    let started = Instant::now();
    loop {
        let verified = system.verify().await;
        assert_eq!(verified.code, Some(0), "waybillctl verify: {}", verified.output);
        let unjudged = verified.report["checks"].as_array().unwrap().iter().flat_map(|check| {
            let reasons = check["not_judged"].as_object().unwrap().keys();
            reasons.filter(|reason| MOVES.iter().any(|moves| reason.contains(moves)))
        });
        let unjudged: BTreeSet<&String> = unjudged.collect();
        if unjudged.is_empty() {
            return;
        }
        assert!(started.elapsed() < REST_TIMEOUT, "at rest, and yet not judged: {unjudged:?}");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// `waybillctl verify` in the middle of a story: no false alarm, whatever moves.
///
/// # Panics
/// When it finds something. That it can not look (its session is cut, a server is away) is no finding.
pub(crate) async fn hold_meanwhile(system: &System) {
    let verified = system.verify().await;
    assert!(matches!(verified.code, Some(0 | 1)), "waybillctl verify: {}", verified.output);
    println!("verify under load ended with {:?}", verified.code);
}

/// Waits until every saga has ended, nobody has to be asked, and each group has taken all that the outboxes hold for it.
async fn at_rest(system: &System) {
    let started = Instant::now();
    loop {
        let Some(unrest) = unrest(system).await else { return };
        assert!(started.elapsed() < REST_TIMEOUT, "no rest within {REST_TIMEOUT:?}: {unrest}");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// What still moves.
async fn unrest(system: &System) -> Option<String> {
    let orders = &system.orders_db.pool;
    for (pool, what, question) in [
        (orders, "sagas run", "select string_agg(saga || ' ' || key || ' ' || state::text, ', ') from saga_instances
                               where status not in ('completed', 'compensated', 'abandoned')"),
        (orders, "orders wait", "select string_agg(id || ' ' || status, ', ') from orders
                                 where status in ('PENDING', 'CANCELLING')"),
        (&system.payments_db.pool, "the provider is to be asked",
         "select string_agg(order_id || ' ' || state || ' tries ' || tries || ' due ' || due_at, ', ') from payments
          where due_at is not null"),
    ] {
        let found: Option<String> = sqlx::query_scalar(question).fetch_one(pool).await.unwrap();
        if let Some(found) = found {
            return Some(format!("{what}: {}", found.chars().take(2_000).collect::<String>()));
        }
    }
    let said = said(system).await;
    for (service, topics) in READS {
        let missing = missing(system, service, topics, &said).await;
        if let Some(first) = missing.first() {
            return Some(format!("{service:?} has not taken {} messages, {first} among them", missing.len()));
        }
    }
    None
}

/// Waits until this service has taken everything that has been said to it so far, whatever is said meanwhile.
pub(crate) async fn hears(system: &System, service: Service) {
    let said = said(system).await;
    let topics = READS.iter().find(|(reader, _)| *reader == service).unwrap().1;
    let what = format!("{service:?} to take what was said to it");
    eventually_named(&what, REST_TIMEOUT, async || {
        missing(system, service, topics, &said).await.is_empty().then_some(())
    })
    .await;
}

async fn missing(
    system: &System,
    service: Service,
    topics: &[&str],
    said: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let taken = taken(system.database(service)).await;
    let wanted = topics.iter().filter_map(|topic| said.get(*topic)).flatten();
    wanted.filter(|id| !taken.contains(*id)).cloned().collect()
}

/// Which topics each service's group reads.
const READS: [(Service, &[&str]); 3] = [
    (Service::Orders, &["inventory.events", "payments.events"]),
    (Service::Inventory, &["inventory.commands"]),
    (Service::Payments, &["payments.commands"]),
];

/// The ids in the outboxes by topic without prefix, leaving out what its readers have no interest in.
async fn said(system: &System) -> BTreeMap<String, BTreeSet<String>> {
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for database in system.databases() {
        let rows: Vec<(String, String)> = sqlx::query_as(
            // Mirrors of dead letters have whatever headers the record had, also such that json can not take apart.
            "select topic, message_id::text from outbox
             where case when topic like '%.dlq' then false else headers->>'ce_type' <> 'StockReceived' end",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        for (topic, id) in rows {
            let topic = topic.strip_prefix(&system.topics.prefix).unwrap_or(&topic).to_owned();
            said.entry(topic).or_default().insert(id);
        }
    }
    said
}

async fn taken(database: &TestDatabase) -> BTreeSet<String> {
    let rows: Vec<String> = sqlx::query_scalar("select distinct message_id::text from inbox")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    rows.into_iter().collect()
}

/// Each accepted order has ended as its customer was told.
async fn journal(system: &System, accepted: &[Accepted]) {
    let rows: Vec<(String, String, i64)> = sqlx::query_as("select id::text, status, total_minor from orders")
        .fetch_all(&system.orders_db.pool)
        .await
        .unwrap();
    let orders: BTreeMap<String, (String, i64)> =
        rows.into_iter().map(|(id, status, total)| (id, (status, total))).collect();
    let mut seen = BTreeSet::new();
    for order in accepted {
        assert!(seen.insert(&order.id), "{} was the answer to two keys", order.id);
        let (status, total) = orders.get(&order.id).unwrap_or_else(|| panic!("{order:?} is lost"));
        let told: Value = serde_json::from_slice(&order.answer).unwrap();
        assert_eq!(told["total_minor"], *total, "the price of {}", order.id);
        match order.cancelled {
            Some(true) => assert_eq!(status, "CANCELLED", "{} after its accepted cancel", order.id),
            Some(false) => assert_eq!(status, "REJECTED", "{} after its refused cancel", order.id),
            None => assert!(["CONFIRMED", "REJECTED"].contains(&status.as_str()), "{} is {status}", order.id),
        }
    }
    let client = reqwest::Client::new();
    let every = (accepted.len() / KEYS_ASKED_AGAIN).max(1);
    for order in accepted.iter().step_by(every) {
        order.answered_the_same(&client, &system.orders.url).await;
    }
}

/// Nobody sits in an open transaction.
async fn transactions_closed(system: &System) {
    let open =
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and backend_type = 'client backend' and xact_start < clock_timestamp() - interval '5 seconds'";
    assert_eq!(count_in_all(system, open).await, 0, "transactions left open");
    let idle = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and state like 'idle in transaction%' and state_change < clock_timestamp() - interval '2 seconds'";
    assert_eq!(count_in_all(system, idle).await, 0, "sessions left idle in a transaction");
}

pub(crate) async fn count_in_all(system: &System, question: &'static str) -> i64 {
    let mut sum = 0;
    for database in system.databases() {
        let count: i64 = sqlx::query_scalar(question).fetch_one(&database.pool).await.unwrap();
        sum += count;
    }
    sum
}

async fn dead_letters_told(system: &System) -> Vec<String> {
    let mut told = Vec::new();
    for database in system.databases() {
        let letters: Vec<String> = sqlx::query_scalar(
            "select concat_ws(' ', topic, kind, error_class, error_message) from dead_letters limit 50",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        told.extend(letters);
    }
    told
}
