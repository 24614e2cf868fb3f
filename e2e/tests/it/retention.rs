//! A system that has been running for longer than its days are kept: `waybillctl verify` gives no false alarm, and still sees
//! what is wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{OwnedRecord, TestDatabase};

use crate::invariants;
use crate::shop::Shop;
use crate::system::{System, Verified};

/// Every topic of messages.
const TOPICS: [&str; 5] =
    ["orders.events", "inventory.commands", "inventory.events", "payments.commands", "payments.events"];
/// Longest wait for one answer of the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest wait until all that is old is dropped.
const DROP_TIMEOUT: Duration = Duration::from_secs(120);
/// How old the story becomes: its outbox may be dropped, its records not yet (7 days for commands).
const DAYS: u32 = 5;
/// Longer than any topic keeps its records.
const MANY_DAYS: u32 = 40;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_allows_for_dropped_days_and_sees_what_is_wrong_behind_them() {
    let system = System::start("e2e_dropped").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 100).await;
    let confirmed = orders(&shop).await;
    invariants::hold(&system, &shop.accepted()).await;

    grown_old(&system, DAYS).await;
    join_all(TOPICS.map(|topic| made_again(&system, topic))).await;
    invariants::hold(&system, &shop.accepted()).await;
    for database in system.databases() {
        dropped(database, "outbox", "select outbox_partition_drop(interval '3 days')").await;
        // Ids can not be made older: today goes too.
        dropped(database, "inbox", "select inbox_partition_drop(interval '-2 days')").await;
    }
    let empty = system.verify().await;
    assert_eq!(empty.code, Some(0), "{}", empty.output);
    told(&empty, "records whose rows may be dropped");
    told(&empty, "records that the inbox may have forgotten");

    // The same keys go on, and new ones begin.
    shop.cancel(&confirmed).await;
    shop.becomes(&confirmed, "CANCELLED").await;
    orders(&shop).await;
    invariants::hold(&system, &shop.accepted()).await;
    told(&system.verify().await, "keys whose first rows are no longer kept");

    let pool = &system.orders_db.pool;
    let newest =
        "delete from outbox where id = (select max(id) from outbox where topic like '%orders.events')";
    sqlx::query(newest).execute(pool).await.unwrap();
    broken(&system.verify().await, "topics");
    let stranger = "insert into inbox (consumer_group, message_id) values ('payments', uuidv7())";
    sqlx::query(stranger).execute(&system.payments_db.pool).await.unwrap();
    broken(&system.verify().await, "inbox origins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_allows_for_topics_that_begin_later_once_their_time_is_over() {
    let system = System::start("e2e_cut").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 100).await;
    let confirmed = orders(&shop).await;
    invariants::hold(&system, &shop.accepted()).await;

    for topic in TOPICS {
        let records = records(&system, topic).await;
        cut(&system, topic, &records).await;
    }
    // Somebody has deleted what was to be kept.
    broken(&system.verify().await, "topics");
    grown_old(&system, MANY_DAYS).await;
    let cut = system.verify().await;
    assert_eq!(cut.code, Some(0), "{}", cut.output);
    told(&cut, "rows whose records the topic may no longer keep");

    // Of a key whose first records are gone the others still read in order.
    shop.cancel(&confirmed).await;
    shop.becomes(&confirmed, "CANCELLED").await;
    orders(&shop).await;
    invariants::hold(&system, &shop.accepted()).await;
}

/// Sagas are deleted after their time, orders stay: they are told, and their books are held as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_allows_for_deleted_sagas_and_still_holds_the_books_of_their_orders() {
    let mut system = System::start_with("e2e_pruned", &[("WAYBILL_SAGA_RETENTION_DAYS", "1")]).await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 100).await;
    orders(&shop).await;
    let accepted = shop.accepted();
    invariants::hold(&system, &accepted).await;

    let old = "update saga_instances set created_at = created_at - interval '2 days', updated_at = updated_at - interval '2 days';
               update orders set updated_at = updated_at - interval '2 days'";
    sqlx::raw_sql(old).execute(&system.orders_db.pool).await.unwrap();
    System::restart(&mut system.orders).await;
    eventually_named("old sagas to be deleted", DROP_TIMEOUT, async || {
        let left: i64 = sqlx::query_scalar("select count(*) from saga_instances")
            .fetch_one(&system.orders_db.pool)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    let pruned = system.verify().await;
    assert_eq!(pruned.code, Some(0), "{}", pruned.output);
    told(&pruned, "orders whose sagas ended so long ago that they are deleted");
    assert!(!pruned.output.contains("orders under way"), "{}", pruned.output);
    judged(&pruned, "books", accepted.len());

    // Their money is still looked at; and a young order without its saga is as wrong as ever.
    let lost = "update payments set refunded_minor = captured_minor where state = 'captured'";
    sqlx::query(lost).execute(&system.payments_db.pool).await.unwrap();
    broken(&system.verify().await, "books");
    let young = "update orders set updated_at = now() where status = 'CONFIRMED'";
    sqlx::query(young).execute(&system.orders_db.pool).await.unwrap();
    broken(&system.verify().await, "sagas");
}

/// One that is confirmed, which is returned, one that is rejected, one that is cancelled.
async fn orders(shop: &Shop<'_>) -> String {
    let confirmed = shop.order(&[("tea", 2)], "tok_approve").await;
    let declined = shop.order(&[("tea", 1)], "tok_decline").await;
    let cancelled = shop.order(&[("tea", 1)], "tok_approve").await;
    shop.becomes(&confirmed, "CONFIRMED").await;
    shop.becomes(&declined, "REJECTED").await;
    shop.becomes(&cancelled, "CONFIRMED").await;
    shop.cancel(&cancelled).await;
    shop.becomes(&cancelled, "CANCELLED").await;
    confirmed
}

/// Makes everything that was said so far, and the databases themselves, older. The outboxes of the days between have gone.
async fn grown_old(system: &System, days: u32) {
    let old = format!(
        "do $$ begin
             for back in {days}..{days} + 1 loop
                 execute format('create table outbox_%s (like outbox including defaults including constraints)',
                                to_char((now() at time zone 'UTC')::date - back, 'YYYYMMDD'));
                 execute format('alter table outbox attach partition outbox_%s for values from (%L) to (%L)',
                                to_char((now() at time zone 'UTC')::date - back, 'YYYYMMDD'),
                                ((now() at time zone 'UTC')::date - back)::text || ' 00:00+00',
                                ((now() at time zone 'UTC')::date - back + 1)::text || ' 00:00+00');
             end loop;
         end $$;
         update outbox set created_at = created_at - interval '{days} days';
         update _sqlx_migrations set installed_on = installed_on - interval '{days} days' - interval '30 days'"
    );
    for database in system.databases() {
        sqlx::raw_sql(AssertSqlSafe(old.clone())).execute(&database.pool).await.unwrap();
    }
}

/// Drops days until the table is empty. A drop gives way to whoever looks at the table, and waits for the relay.
async fn dropped(database: &TestDatabase, table: &str, drop: &'static str) {
    eventually_named(table, DROP_TIMEOUT, async || {
        let _given_way = sqlx::query(drop).execute(&database.pool).await;
        let count = AssertSqlSafe(format!("select count(*) from {table}"));
        let rows: i64 = sqlx::query_scalar(count).fetch_one(&database.pool).await.unwrap();
        (rows == 0).then_some(())
    })
    .await;
}

async fn records(system: &System, topic: &str) -> Vec<OwnedRecord> {
    system.topics.read_to_end(topic, BROKER_TIMEOUT).await
}

/// Deletes these records, as a topic's retention does with its oldest.
async fn cut(system: &System, topic: &str, records: &[OwnedRecord]) {
    let full = system.topics.full(topic);
    let mut ends = TopicPartitionList::new();
    for record in records {
        let next = Offset::Offset(record.offset + 1);
        match ends.find_partition(&full, record.partition) {
            Some(_) => ends.set_partition_offset(&full, record.partition, next).unwrap(),
            None => ends.add_partition_offset(&full, record.partition, next).unwrap(),
        }
    }
    let admin: AdminClient<DefaultClientContext> = config(system).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(BROKER_TIMEOUT));
    let deleted = admin.delete_records(&ends, &options).await.unwrap();
    for element in deleted.elements() {
        element.error().unwrap_or_else(|error| panic!("{full} [{}]: {error}", element.partition()));
    }
}

/// The same records once more with older times, in the place of those that there are: consumers drop them as repeats.
async fn made_again(system: &System, topic: &str) {
    let records = records(system, topic).await;
    cut(system, topic, &records).await;
    let producer: FutureProducer = config(system).set("linger.ms", "0").create().unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let old_ms = i64::try_from(now_ms).unwrap() - i64::from(DAYS) * DAY_MS;
    let full = system.topics.full(topic);
    for record in &records {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let mut again = FutureRecord::<[u8], [u8]>::to(&full).partition(record.partition).headers(headers);
        again.key = record.key.as_deref();
        again.payload = record.payload.as_deref();
        producer.send(again.timestamp(old_ms), BROKER_TIMEOUT).await.unwrap();
    }
}

fn config(system: &System) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", system.topics.bootstrap.as_str());
    config
}

/// It left something unjudged for this reason.
fn told(verified: &Verified, reason: &str) {
    let checks = verified.report["checks"].as_array().unwrap();
    let counted = |check: &Value| check["not_judged"][reason].as_u64().unwrap_or_default();
    assert!(checks.iter().map(counted).sum::<u64>() > 0, "no {reason}: {}", verified.output);
}

/// It judged so many under this promise.
fn judged(verified: &Verified, promise: &str, count: usize) {
    let checks = verified.report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == promise).unwrap();
    assert_eq!(check["judged"], count, "{}", verified.output);
}

/// It found this promise broken.
fn broken(verified: &Verified, promise: &str) {
    assert_eq!(verified.code, Some(3), "{}", verified.output);
    let checks = verified.report["checks"].as_array().unwrap();
    let broken = checks.iter().any(|check| check["name"] == promise && check["violations"] != 0);
    assert!(broken, "{promise} is broken: {}", verified.output);
}
