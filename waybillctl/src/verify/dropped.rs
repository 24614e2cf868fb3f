//! Outboxes whose days were dropped, on a real Postgres: no false alarm at their edges, and what is wrong is still seen.

use std::path::Path;

use chrono::NaiveDate;
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use uuid::Uuid;
use waybill_testkit::TestDatabase;

use super::databases::Owner;
use super::kafka::Topics;
use super::report::{Check, Waits};
use super::{letters, outbox};

const TOPIC: &str = "orders.events";

/// A database whose outbox is 20 days old, with all its days.
async fn aged(hint: &str) -> (TestDatabase, PoolConnection<Postgres>) {
    let database = TestDatabase::create(hint).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/outbox/migrations");
    database.migrate(&[&Migrator::new(folder).await.unwrap()]).await;
    let mut conn = database.pool.acquire().await.unwrap();
    sqlx::raw_sql(
        "set timezone = 'UTC';
         update _sqlx_migrations set installed_on = now() - interval '20 days';
         do $$ begin
             for back in 2..21 loop
                 execute format('create table outbox_%s partition of outbox for values from (%L) to (%L)',
                                to_char(current_date - back, 'YYYYMMDD'),
                                (current_date - back)::timestamptz, (current_date - back + 1)::timestamptz);
             end loop;
         end $$",
    )
    .execute(&mut *conn)
    .await
    .unwrap();
    (database, conn)
}

/// A row of some days ago, by its id and by its day.
async fn said(conn: &mut PoolConnection<Postgres>, days_ago: i32, key: &str, sequence: i64) -> Uuid {
    sqlx::query_scalar(
        "insert into outbox (message_id, topic, key, headers, created_at)
         select id, $1, convert_to($2, 'UTF8'), json_build_object('ce_sequence', $3::bigint::text), uuid_extract_timestamp(id)
         from (select uuidv7(make_interval(days => -$4::int)) as id) made
         returning message_id",
    )
    .bind(TOPIC)
    .bind(key)
    .bind(sequence)
    .bind(days_ago)
    .fetch_one(&mut **conn)
    .await
    .unwrap()
}

/// The relay has published all that is there.
async fn published(conn: &mut PoolConnection<Postgres>) {
    let position = "update outbox_relay set position_from = pg_current_snapshot()";
    sqlx::query(position).execute(&mut **conn).await.unwrap();
}

/// Drops every day that ended more than four days ago and that may go.
async fn dropped(conn: &mut PoolConnection<Postgres>) {
    let one = "select outbox_partition_drop(interval '4 days')";
    while sqlx::query_scalar::<_, Option<String>>(one).fetch_one(&mut **conn).await.unwrap().is_some() {}
}

async fn day(conn: &mut PoolConnection<Postgres>, days_ago: i32) -> NaiveDate {
    sqlx::query_scalar("select current_date - $1::int").bind(days_ago).fetch_one(&mut **conn).await.unwrap()
}

async fn sequences(conn: &mut PoolConnection<Postgres>) -> Check {
    let mut check = outbox::new_check();
    let topics = Topics::new("127.0.0.1:1", "").unwrap();
    outbox::check(conn, &topics, Owner::Orders, &mut check).await.unwrap();
    check
}

async fn mirrors(conn: &mut PoolConnection<Postgres>) -> Check {
    let mut check = letters::new_check();
    letters::check(conn, &mut check, &mut Waits::default()).await.unwrap();
    check
}

#[track_caller]
fn assert_found(check: &Check, violations: &[&str], not_judged: u64) {
    assert_eq!(check.violations, violations.len() as u64, "{check:?}");
    for violation in violations {
        assert!(check.examples.iter().any(|example| example.contains(violation)), "{violation}: {check:?}");
    }
    assert_eq!(check.not_judged.values().sum::<u64>(), not_judged, "{check:?}");
}

#[tokio::test]
async fn a_young_day_dropped_behind_an_older_one_that_is_kept_hides_no_gap_and_makes_none() {
    let (_database, mut conn) = aged("verify_young_day").await;
    said(&mut conn, 6, "cup", 1).await;
    said(&mut conn, 5, "cup", 2).await;
    assert_eq!(outbox::kept_since(&mut conn).await.unwrap(), None, "every day is there");
    published(&mut conn).await;
    // A transaction that began then and was committed after the relay's look: its day stays.
    said(&mut conn, 6, "late", 1).await;
    said(&mut conn, 3, "cup", 3).await;
    dropped(&mut conn).await;
    let left = "select count(*) from outbox where key = 'cup'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut *conn).await.unwrap();
    assert_eq!(left, 2, "the second went before the first");
    assert_eq!(outbox::kept_since(&mut conn).await.unwrap(), Some(day(&mut conn, 4).await));
    assert_found(&sequences(&mut conn).await, &[], 1);

    said(&mut conn, 2, "cup", 5).await;
    assert_found(&sequences(&mut conn).await, &["cup: 5 after 3"], 1);
}

#[tokio::test]
async fn republished_copies_whose_originals_are_gone_begin_no_new_count() {
    let (_database, mut conn) = aged("verify_republished").await;
    said(&mut conn, 6, "cup", 1).await;
    let second = said(&mut conn, 5, "cup", 2).await;
    said(&mut conn, 3, "cup", 3).await;
    published(&mut conn).await;
    let again = "select count(*) from outbox_republish(ids => array[$1], apply => true)";
    sqlx::query(again).bind(second).execute(&mut *conn).await.unwrap();
    assert_found(&sequences(&mut conn).await, &[], 0);
    dropped(&mut conn).await;
    let copies = "select count(*) from outbox where message_id = $1";
    let copies: i64 = sqlx::query_scalar(copies).bind(second).fetch_one(&mut *conn).await.unwrap();
    assert_eq!(copies, 1, "only what was published again is left of it");
    said(&mut conn, 0, "cup", 4).await;
    assert_found(&sequences(&mut conn).await, &[], 1);

    said(&mut conn, 0, "cup", 4).await;
    assert_found(&sequences(&mut conn).await, &["cup: 4 after 4"], 1);
}

/// A dead letter that failed so long after the beginning of a day.
async fn failed(conn: &mut PoolConnection<Postgres>, days_ago: i32, after: &str, offset: i64) -> Uuid {
    sqlx::query_scalar(
        "insert into dead_letters (id, consumer_group, topic, partition, \"offset\", headers, error_class, error_message,
                                   attempts, first_failed_at, last_failed_at)
         select uuidv7(), 'orders', 'payments.events', 0, $3, '[]', 'fault', 'broken', 1, at, at
         from (select (current_date - $1::int)::timestamptz + $2::interval as at) failed
         returning id",
    )
    .bind(days_ago)
    .bind(after)
    .bind(offset)
    .fetch_one(&mut **conn)
    .await
    .unwrap()
}

/// The row that mirrors a dead letter, written by a transaction that began so long after the beginning of a day.
async fn mirrored(conn: &mut PoolConnection<Postgres>, letter: Uuid, days_ago: i32, after: &str) {
    sqlx::query(
        "insert into outbox (message_id, topic, headers, created_at)
         values ($1, 'payments.events.orders.dlq', '{}', (current_date - $2::int)::timestamptz + $3::interval)",
    )
    .bind(letter)
    .bind(days_ago)
    .bind(after)
    .execute(&mut **conn)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_dead_letters_mirror_at_a_days_edge_may_have_gone_with_the_day_before() {
    let (_database, mut conn) = aged("verify_mirror_edge").await;
    // Each failed just after midnight in a transaction that began just before.
    let old = failed(&mut conn, 4, "10 seconds", 1).await;
    mirrored(&mut conn, old, 5, "23 hours 59 minutes 59 seconds").await;
    let young = failed(&mut conn, 2, "10 seconds", 2).await;
    mirrored(&mut conn, young, 3, "23 hours 59 minutes 59 seconds").await;
    // Something else of the first day that is kept, from before the failure.
    mirrored(&mut conn, Uuid::now_v7(), 4, "5 seconds").await;
    assert_found(&mirrors(&mut conn).await, &[], 0);
    published(&mut conn).await;
    dropped(&mut conn).await;
    let left = "select count(*) from outbox where message_id = $1";
    let left: i64 = sqlx::query_scalar(left).bind(old).fetch_one(&mut *conn).await.unwrap();
    assert_eq!(left, 0, "the old one's mirror went with its day");
    assert_eq!(outbox::kept_since(&mut conn).await.unwrap(), Some(day(&mut conn, 4).await));
    assert_found(&mirrors(&mut conn).await, &[], 0);

    let lost = failed(&mut conn, 2, "1 hour", 3).await.to_string();
    assert_found(&mirrors(&mut conn).await, &[&lost], 0);
}

#[tokio::test]
async fn while_no_day_was_dropped_every_dead_letter_has_its_mirror() {
    let (_database, mut conn) = aged("verify_mirror_all").await;
    let lost = failed(&mut conn, 19, "1 hour", 1).await.to_string();
    assert_found(&mirrors(&mut conn).await, &[&lost], 0);
}
