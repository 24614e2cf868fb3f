//! Republishing: the same messages with the same ids, in the same order per key, or nothing at all.

use chrono::{Duration, Utc};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use uuid::{NoContext, Timestamp, Uuid};
use waybill_outbox::republish::{RepublishError, Selection, apply, plan};
use waybill_outbox::status::{self, StatusError};
use waybill_testkit::TestDatabase;

use crate::ledger;

type Row = (Uuid, String, Option<Vec<u8>>, String, Option<Vec<u8>>);

async fn rows(pool: &PgPool, after: i64) -> Vec<Row> {
    let read = "select message_id, topic, key, headers::text, payload from outbox where id > $1 order by id";
    sqlx::query_as(read).bind(after).fetch_all(pool).await.unwrap()
}

/// Two topics, three keys, a tombstone and a row without a key among them.
async fn append(pool: &PgPool, count: i32) {
    let append = "select outbox_append(array_agg(gen_random_uuid()), array_agg('topic' || n % 2),
            array_agg(case when n % 7 > 0 then convert_to('k' || n % 3, 'UTF8') end),
            array_agg(format('{\"ce_sequence\":  \"%s\"}', n)),
            array_agg(case when n % 5 > 0 then convert_to(repeat('x', n), 'UTF8') end))
        from generate_series(1, $1) n";
    sqlx::query(append).bind(count).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_range_is_appended_anew_unchanged_and_in_order() {
    let database = ledger::database("republish").await;
    let pool = &database.pool;
    append(pool, 40).await;
    let before = rows(pool, 0).await;
    let chosen = Selection::Ids { from: 11, to: 30 };
    let mut tx = pool.begin().await.unwrap();
    let planned = plan(&mut tx, &chosen, 1_000).await.unwrap();
    assert_eq!((planned.rows, planned.applied, planned.topics.len()), (20, false, 2));
    assert_eq!((planned.topics[0].topic.as_str(), planned.topics[0].rows), ("topic0", 10));
    assert_eq!(rows(pool, 40).await, [], "a plan changes nothing");
    let applied = apply(&mut tx, &chosen, 1_000).await.unwrap();
    assert_eq!((applied.rows, applied.first_at, applied.applied), (20, planned.first_at, true));
    tx.commit().await.unwrap();
    assert_eq!(rows(pool, 40).await, before[10..30], "ids, topics, keys, headers and payloads, in order");
    // Messages that are there twice are taken once.
    let mut connection = pool.acquire().await.unwrap();
    let all = Selection::Time { from: Utc::now() - Duration::days(1), to: Utc::now() + Duration::days(1) };
    assert_eq!(apply(&mut connection, &all, 1_000).await.unwrap().rows, 40);
    assert_eq!(rows(pool, 60).await, before);
}

#[tokio::test]
async fn single_messages_are_chosen_by_their_ids() {
    let database = ledger::database("republish_ids").await;
    let pool = &database.pool;
    append(pool, 10).await;
    let before = rows(pool, 0).await;
    let mut connection = pool.acquire().await.unwrap();
    let chosen = Selection::Messages(vec![before[7].0, before[2].0, Uuid::nil()]);
    assert_eq!(apply(&mut connection, &chosen, 10).await.unwrap().rows, 2);
    assert_eq!(rows(pool, 10).await, [before[2].clone(), before[7].clone()]);
    let nothing = plan(&mut connection, &Selection::Messages(vec![]), 10).await.unwrap();
    assert_eq!((nothing.rows, nothing.first_at), (0, None));
}

/// A connection that has read nothing yet: what it read is counted until its statistics are handed over, not per transaction.
async fn fresh(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(&database.url).await.unwrap()
}

/// The days that this connection has read.
async fn days_read(connection: &mut PgConnection) -> Vec<String> {
    let read = "select relname from pg_stat_xact_user_tables
                where relname like 'outbox\\_2%' and seq_scan + idx_scan > 0 order by 1";
    sqlx::query_scalar(read).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn a_message_is_looked_for_from_the_day_before_its_ids_time_on() {
    let database = ledger::database("republish_day").await;
    let pool = &database.pool;
    for day in ["2019-12-31", "2020-01-01", "2020-01-05"] {
        let name = format!("outbox_{}", day.replace('-', ""));
        let of_a_day = format!(
            "create table {name} (like outbox including defaults including constraints);
             alter table outbox attach partition {name}
                 for values from ('{day} 00:00+00') to ('{day} 00:00+00'::timestamptz + interval '1 day')"
        );
        sqlx::raw_sql(AssertSqlSafe(of_a_day)).execute(pool).await.unwrap();
    }
    let at = |text: &str| text.parse::<chrono::DateTime<Utc>>().unwrap();
    // Made just after midnight, by a clock that is ahead of the database's.
    let made = at("2020-01-02T00:00:30Z").timestamp() as u64;
    let old = Uuid::new_v7(Timestamp::from_unix(NoContext, made, 0));
    let insert =
        "insert into outbox (message_id, topic, key, headers, created_at) values ($1, 'a', 'k', '{}', $2)";
    let today = Uuid::now_v7();
    for (id, time) in [(old, at("2020-01-01T23:59:59Z")), (today, Utc::now())] {
        sqlx::query(insert).bind(id).bind(time).execute(pool).await.unwrap();
    }
    append(pool, 10).await;

    let mut connection = fresh(&database).await;
    let mut tx = connection.begin().await.unwrap();
    let found = plan(&mut tx, &Selection::Messages(vec![old]), 10).await.unwrap();
    assert_eq!((found.rows, found.first_at), (1, Some(at("2020-01-01T23:59:59Z"))));
    assert_eq!((found.searched_from, found.searched_to), (Some(at("2020-01-01T00:00:00Z")), None));
    let read = days_read(&mut tx).await;
    assert!(!read.contains(&"outbox_20191231".to_owned()), "no earlier day is read: {read:?}");
    assert!(read.contains(&"outbox_20200105".to_owned()), "it may have been appended again: {read:?}");
    tx.rollback().await.unwrap();

    let mut connection = fresh(&database).await;
    let mut tx = connection.begin().await.unwrap();
    let found = apply(&mut tx, &Selection::Messages(vec![today]), 10).await.unwrap();
    assert_eq!(found.rows, 1);
    let read = days_read(&mut tx).await;
    assert!(!read.is_empty() && !read.iter().any(|day| day.starts_with("outbox_2020")), "{read:?}");
    let both = plan(&mut tx, &Selection::Messages(vec![old, today]), 10).await.unwrap();
    assert_eq!(both.rows, 2, "all days between them");
    tx.rollback().await.unwrap();

    // One id without a time: it may be anywhere.
    let mut connection = fresh(&database).await;
    let mut tx = connection.begin().await.unwrap();
    let ids = vec![old, rows(pool, 2).await[4].0];
    let found = plan(&mut tx, &Selection::Messages(ids), 10).await.unwrap();
    assert_eq!((found.rows, found.searched_from), (2, None));
}

#[tokio::test]
async fn too_many_rows_are_refused_whole() {
    let database = ledger::database("republish_many").await;
    let pool = &database.pool;
    append(pool, 11).await;
    let mut connection = pool.acquire().await.unwrap();
    let chosen = Selection::Ids { from: 1, to: i64::MAX };
    let refused = apply(&mut connection, &chosen, 10).await.unwrap_err();
    assert!(matches!(refused, RepublishError::TooMany { rows_max: 10 }), "{refused:?}");
    assert!(matches!(plan(&mut connection, &chosen, 0).await, Err(RepublishError::BadLimit(0))));
    assert_eq!(rows(pool, 11).await, []);
    assert_eq!(apply(&mut connection, &chosen, 11).await.unwrap().rows, 11);
}

#[tokio::test]
async fn the_status_tells_what_waits() {
    let database = ledger::database("status").await;
    let pool = &database.pool;
    let mut connection = pool.acquire().await.unwrap();
    let empty = status::read(&mut connection, status::RELAY_DEFAULT).await.unwrap();
    assert_eq!((empty.unpublished_rows, empty.oldest_unpublished_at), (Some(0), None));
    assert_eq!((empty.relay.position_from.as_str(), empty.relay.owner.clone()), ("1:1:", None));
    append(pool, 10).await;
    let waiting = status::read(&mut connection, status::RELAY_DEFAULT).await.unwrap();
    assert_eq!(waiting.unpublished_rows, Some(10));
    assert!(waiting.oldest_unpublished_at.is_some());
    assert!(waiting.partitions.iter().any(|partition| !partition.published));
    // Inside a round, up to the fourth row.
    let inside = "update outbox_relay set position_to = pg_current_snapshot(), position_id = 4";
    sqlx::raw_sql(inside).execute(pool).await.unwrap();
    let inside = status::read(&mut connection, status::RELAY_DEFAULT).await.unwrap();
    assert_eq!(inside.unpublished_rows, Some(6));
    let after = "update outbox_relay set position_from = pg_current_snapshot(), position_to = null";
    sqlx::raw_sql(after).execute(pool).await.unwrap();
    let after = status::read(&mut connection, status::RELAY_DEFAULT).await.unwrap();
    assert_eq!((after.unpublished_rows, after.oldest_unpublished_at), (Some(0), None));
    assert!(after.partitions.iter().all(|partition| partition.published));
    let none = status::read(&mut connection, "nobody").await.unwrap_err();
    assert!(matches!(none, StatusError::NoRelay(_)));
}
