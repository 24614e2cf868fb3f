//! Day partitions: ids find their day, strays find a home, nothing is known twice or forgotten.

use std::time::Duration;

use chrono::{Days, Utc};
use sqlx::AssertSqlSafe;
use uuid::{NoContext, Timestamp, Uuid};
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_outbox::upkeep;
use waybill_testkit::eventually;

use crate::ledger::{self, notes, record};

/// Anything here is done by then, on a slow machine too.
const SOON: Duration = Duration::from_secs(60);

async fn home(pool: &sqlx::PgPool, id: Uuid) -> String {
    sqlx::query_scalar("select tableoid::regclass::text from inbox where message_id = $1")
        .bind(id)
        .fetch_one(pool)
        .await
        .unwrap()
}

fn id_of(day: chrono::DateTime<Utc>) -> Uuid {
    Uuid::new_v7(Timestamp::from_unix(NoContext, day.timestamp() as u64, 0))
}

fn batch_of(id: Uuid) -> Batch {
    let mut envelope = ledger::envelope("a", 1);
    envelope.id = id;
    Batch { records: vec![record(&envelope, 0, b"note")] }
}

#[tokio::test]
async fn ids_lie_in_their_day_and_strays_in_the_default_partition() {
    let database = ledger::database("days").await;
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let now = Utc::now();
    let (today, last_week) = (id_of(now), id_of(now - Days::new(7)));
    let (old, foreign) = (id_of(now - Days::new(400)), Uuid::from_u128(u128::MAX / 3));
    for id in [today, last_week, old, foreign] {
        for _ in 0..2 {
            group.handle(&batch_of(id)).await.unwrap();
        }
    }
    assert_eq!(notes(&database.pool).await.len(), 4, "each once, wherever it lies");
    let name = |day: chrono::DateTime<Utc>| format!("inbox_{}", day.format("%Y%m%d"));
    assert_eq!(home(&database.pool, today).await, name(now));
    assert_eq!(home(&database.pool, last_week).await, name(now - Days::new(7)));
    assert_eq!(home(&database.pool, old).await, "inbox_default");
    assert_eq!(home(&database.pool, foreign).await, "inbox_default");
}

#[tokio::test]
async fn what_came_before_its_partition_moves_into_it_and_stays_known() {
    let database = ledger::database("late").await;
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let now = Utc::now();
    let today = now.format("%Y%m%d");
    sqlx::query(AssertSqlSafe(format!("drop table inbox_{today}, outbox_{today}")))
        .execute(&database.pool)
        .await
        .unwrap();
    sqlx::raw_sql("select outbox_partitions_make()").execute(&database.pool).await.unwrap();
    let id = id_of(now);
    group.handle(&batch_of(id)).await.unwrap();
    assert_eq!(home(&database.pool, id).await, "inbox_default");

    assert_eq!(upkeep::make(&database.pool).await.unwrap(), 1);
    assert_eq!(upkeep::make(&database.pool).await.unwrap(), 0, "harmless to repeat");
    assert_eq!(home(&database.pool, id).await, format!("inbox_{today}"));
    group.handle(&batch_of(id)).await.unwrap();
    assert_eq!(notes(&database.pool).await.len(), 1, "known after the move");
    // Retention is to drop a day.
    sqlx::query(AssertSqlSafe(format!("drop table inbox_{today}"))).execute(&database.pool).await.unwrap();
    assert_eq!(ledger::count(&database.pool, "inbox").await, 0);
}

/// Stops whoever makes the table of this name, before it is attached, until the lock is given back.
const STOPPED: i64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_no_known_day_get_through_while_days_are_made() {
    let database = ledger::database("day_by_day").await;
    let pool = database.pool.clone();
    let day = |ahead| (Utc::now() + Days::new(ahead)).format("%Y%m%d");
    let (first, second) = (day(1), day(2));
    let stop = format!(
        "drop table inbox_{first}, inbox_{second};
        create function stop_there() returns event_trigger language plpgsql as $$ begin
            if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'public.inbox_{second}') then
                perform pg_advisory_xact_lock_shared({STOPPED});
            end if;
        end $$;
        create event trigger stop_there on ddl_command_end when tag in ('CREATE TABLE') execute function stop_there();"
    );
    sqlx::raw_sql(AssertSqlSafe(stop)).execute(&pool).await.unwrap();
    let mut stopping = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1)").bind(STOPPED).execute(&mut *stopping).await.unwrap();
    let making = tokio::spawn({
        let pool = pool.clone();
        async move { upkeep::make(&pool).await }
    });
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and objid = $1 and not granted";
    eventually(SOON, async || {
        let waiting: i64 = sqlx::query_scalar(waits).bind(STOPPED).fetch_one(&pool).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    let there = AssertSqlSafe(format!("select to_regclass('inbox_{first}') is not null"));
    assert!(sqlx::query_scalar::<_, bool>(there).fetch_one(&pool).await.unwrap(), "the first is committed");
    // Between the first day and the second.
    let mut writer = pool.begin().await.unwrap();
    sqlx::query("set local lock_timeout = '2s'").execute(&mut *writer).await.unwrap();
    let take = "insert into inbox (consumer_group, message_id) values ('g', gen_random_uuid())";
    sqlx::query(take).execute(&mut *writer).await.expect("an id of no known day waits for no other day");
    writer.commit().await.unwrap();
    stopping.rollback().await.unwrap();
    assert_eq!(making.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_day_of_the_inbox_is_left_for_later_when_somebody_reads_where_strays_lie() {
    let database = ledger::database("inbox_busy").await;
    let tomorrow = (Utc::now() + Days::new(1)).format("%Y%m%d");
    sqlx::query(AssertSqlSafe(format!("drop table inbox_{tomorrow}"))).execute(&database.pool).await.unwrap();
    let mut reader = database.pool.begin().await.unwrap();
    sqlx::query("select count(*) from inbox").execute(&mut *reader).await.unwrap();
    let busy = upkeep::make(&database.pool).await.unwrap_err();
    assert_eq!(busy.as_database_error().unwrap().code().unwrap(), "55P03", "{busy}");
    reader.commit().await.unwrap();
    assert_eq!(upkeep::make(&database.pool).await.unwrap(), 1);
}

#[tokio::test]
async fn a_new_day_of_the_outbox_waits_for_no_reader_or_writer() {
    let database = ledger::database("no_wait").await;
    let tomorrow = (Utc::now() + Days::new(1)).format("%Y%m%d");
    sqlx::query(AssertSqlSafe(format!("drop table outbox_{tomorrow}")))
        .execute(&database.pool)
        .await
        .unwrap();
    let mut writer = database.pool.begin().await.unwrap();
    let (group, _) = ledger::group(&database, ledger::PREFIX).await;
    let append = "select outbox_append(array[gen_random_uuid()], array['a'], array['k'::bytea], array['{}'], array[''::bytea])";
    sqlx::query(append).execute(&mut *writer).await.unwrap();
    assert_eq!(upkeep::make(&database.pool).await.unwrap(), 1);
    group.handle(&batch_of(id_of(Utc::now()))).await.unwrap();
    writer.commit().await.unwrap();
    // The new partition has the parent's checks and numbers its rows like the others.
    let insert = "insert into outbox (message_id, topic, headers, created_at)
                  values (gen_random_uuid(), 'a', '{}', now() + interval '1 day') returning id";
    let id: i64 = sqlx::query_scalar(insert).fetch_one(&database.pool).await.unwrap();
    assert_eq!(id, 3);
    let wrong = "insert into outbox (message_id, topic, headers, created_at)
                 values (gen_random_uuid(), '', '{}', now() + interval '1 day')";
    let error = sqlx::query(wrong).execute(&database.pool).await.unwrap_err();
    assert!(error.as_database_error().unwrap().is_check_violation(), "{error}");
}

#[tokio::test]
async fn instances_that_start_together_take_turns() {
    let database = ledger::database("turns").await;
    sqlx::raw_sql(
        "do $$ declare name text; begin
            for name in select inhrelid::regclass::text from pg_inherits
                        where inhparent in ('inbox'::regclass, 'outbox'::regclass) and inhrelid <> 'inbox_default'::regclass
            loop execute 'drop table ' || name; end loop;
         end $$",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let rounds = (0..4).map(|_| {
        let pool = database.pool.clone();
        tokio::spawn(async move { upkeep::make(&pool).await })
    });
    let mut made = 0;
    for round in rounds.collect::<Vec<_>>() {
        made += round.await.unwrap().unwrap();
    }
    assert_eq!(made, 9 + 16, "yesterday to a week ahead, and eight days ago to a week ahead");
}
