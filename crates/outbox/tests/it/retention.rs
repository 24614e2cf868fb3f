//! Retention: a day goes when every relay has published it and its time is over; nothing unpublished ever goes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{Days, Utc};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use uuid::{NoContext, Timestamp, Uuid};
use waybill_outbox::status;
use waybill_outbox::upkeep::{self, Dropped, Retention};

use crate::ledger;

const DAY: Duration = Duration::from_secs(86_400);
/// The day of these tests: long past every retention.
const OLD_DAY: &str = "outbox_20200101";

async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

async fn with_old_day(hint: &str) -> waybill_testkit::TestDatabase {
    let database = ledger::database(hint).await;
    run(&database.pool, OLD_DAY_AGAIN).await;
    database
}

const OLD_DAY_AGAIN: &str =
    "create table outbox_20200101 (like outbox including defaults including constraints);
    alter table outbox attach partition outbox_20200101
        for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00')";

/// As a transaction does that began on the old day.
const APPEND_OLD: &str = "insert into outbox (message_id, topic, key, headers, created_at)
    values (gen_random_uuid(), 'a', 'k', '{}', '2020-01-01 12:00+00')";
const APPEND_NOW: &str = "insert into outbox (message_id, topic, key, headers)
    values (gen_random_uuid(), 'a', 'k', '{}')";
/// As a relay does that has published all it sees.
const PUBLISH: &str = "update outbox_relay set position_from = pg_current_snapshot() where name = 'default'";

async fn drop_old(pool: &PgPool) -> Dropped {
    upkeep::drop_old(pool, Retention::default()).await.unwrap()
}

async fn published(pool: &PgPool) -> bool {
    let mut connection = pool.acquire().await.unwrap();
    let status = status::read(&mut connection, status::RELAY_DEFAULT).await.unwrap();
    status.partitions.iter().find(|partition| partition.name == OLD_DAY).unwrap().published
}

#[tokio::test]
async fn a_day_goes_when_every_relay_has_published_it() {
    let database = with_old_day("retention").await;
    let pool = &database.pool;
    run(pool, APPEND_OLD).await;
    run(pool, "insert into outbox_relay (name) values ('second')").await;
    let waits = Dropped { unpublished: vec![OLD_DAY.to_owned()], ..Dropped::default() };
    assert_eq!(drop_old(pool).await, waits, "no relay has published it");
    run(pool, PUBLISH).await;
    assert_eq!(drop_old(pool).await, waits, "one of two has");
    run(pool, "update outbox_relay set position_from = pg_current_snapshot() where name = 'second'").await;
    assert!(published(pool).await);
    let longer = Retention { outbox: 3_650 * DAY, inbox: 3_650 * DAY };
    assert_eq!(upkeep::drop_old(pool, longer).await.unwrap(), Dropped::default(), "its time is not over");
    run(pool, "delete from outbox_relay").await;
    assert_eq!(drop_old(pool).await, waits, "without a relay nothing counts as published");
    run(pool, "insert into outbox_relay (name, position_from) values ('default', pg_current_snapshot())")
        .await;
    assert_eq!(drop_old(pool).await.partitions, [OLD_DAY]);
    assert_eq!(drop_old(pool).await, Dropped::default(), "harmless to repeat");
}

#[tokio::test]
async fn a_row_committed_late_into_an_old_day_keeps_it() {
    let database = with_old_day("late_row").await;
    let pool = &database.pool;
    let mut late = pool.begin().await.unwrap();
    sqlx::query(APPEND_OLD).execute(&mut *late).await.unwrap();
    // The relay goes on past the open transaction: its row belongs to a later round.
    run(pool, PUBLISH).await;
    assert!(published(pool).await, "nobody sees the row yet");
    let busy = drop_old(pool).await;
    assert!(busy.busy && busy.partitions.is_empty(), "who may still commit is waited for: {busy:?}");
    run(pool, APPEND_NOW).await;
    late.commit().await.unwrap();
    assert_eq!(drop_old(pool).await.unpublished, [OLD_DAY], "committed, and after the relay's position");
    run(pool, PUBLISH).await;
    assert_eq!(drop_old(pool).await.partitions, [OLD_DAY]);
    assert_eq!(ledger::count(pool, "outbox").await, 1);
}

#[tokio::test]
async fn a_row_in_a_prepared_transaction_keeps_its_day() {
    let database = with_old_day("prepared").await;
    let pool = &database.pool;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let name = format!("p{}", Uuid::now_v7().simple());
    let prepare = format!("begin; {APPEND_OLD}; prepare transaction '{name}'");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut connection).await.unwrap();
    run(pool, PUBLISH).await;
    assert!(drop_old(pool).await.busy);
    let commit = AssertSqlSafe(format!("commit prepared '{name}'"));
    connection.close().await.unwrap();
    sqlx::raw_sql(commit).execute(pool).await.unwrap();
    assert_eq!(drop_old(pool).await.unpublished, [OLD_DAY]);
}

#[tokio::test]
async fn who_waits_for_the_drop_gives_way_to_appends() {
    let database = with_old_day("gives_way").await;
    let pool = database.pool.clone();
    run(&pool, PUBLISH).await;
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("select count(*) from outbox").execute(&mut *reader).await.unwrap();
    let dropping = tokio::spawn({
        let pool = pool.clone();
        async move { drop_old(&pool).await }
    });
    // Whoever comes while it waits is held up by its bound at most: the server itself would refuse after three seconds.
    let mut writer = PgConnection::connect(&database.url).await.unwrap();
    sqlx::query("set lock_timeout = '3s'").execute(&mut writer).await.unwrap();
    let mut longest = Duration::ZERO;
    while !dropping.is_finished() {
        let began = Instant::now();
        sqlx::query(APPEND_NOW).execute(&mut writer).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(3), "an append took {longest:?}, 200 ms is the bound of its wait");
    assert!(dropping.await.unwrap().busy);
    reader.commit().await.unwrap();
    assert_eq!(drop_old(&pool).await.partitions, [OLD_DAY]);
}

/// The bound of the next test, far above what a busy machine needs for an append.
const BOUND: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_locks_of_a_drop_have_one_bound_together() {
    let database = with_old_day("one_bound").await;
    let pool = database.pool.clone();
    run(&pool, PUBLISH).await;
    let bound = format!("alter function outbox_partition_drop set lock_timeout = {}", BOUND.as_millis());
    sqlx::raw_sql(AssertSqlSafe(bound)).execute(&pool).await.unwrap();
    // One reader of the whole outbox, which goes after most of the bound, and one of the day, which stays.
    let (mut of_all, mut of_day) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    sqlx::raw_sql("lock table only outbox in access share mode").execute(&mut *of_all).await.unwrap();
    sqlx::raw_sql("lock table only outbox_20200101 in access share mode")
        .execute(&mut *of_day)
        .await
        .unwrap();
    let dropping = tokio::spawn({
        let pool = pool.clone();
        async move { drop_old(&pool).await }
    });
    let going = tokio::spawn(async move {
        tokio::time::sleep(BOUND * 3 / 4).await;
        of_all.rollback().await.unwrap();
    });
    let mut writer = PgConnection::connect(&database.url).await.unwrap();
    let mut longest = Duration::ZERO;
    while !dropping.is_finished() {
        let began = Instant::now();
        sqlx::query(APPEND_NOW).execute(&mut writer).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    assert!(dropping.await.unwrap().busy);
    // With a bound for each it would be seven quarters.
    assert!(longest < BOUND * 3 / 2, "an append waited for {longest:?} where {BOUND:?} is the bound");
    going.await.unwrap();
    of_day.rollback().await.unwrap();
    assert_eq!(drop_old(&pool).await.partitions, [OLD_DAY]);
}

#[tokio::test]
async fn rows_and_positions_of_another_cluster_keep_every_day() {
    let database = with_old_day("foreign").await;
    let pool = &database.pool;
    run(pool, APPEND_OLD).await;
    run(pool, "update outbox_relay set position_from = '4000000000:4000000000:'").await;
    assert_eq!(drop_old(pool).await.unpublished, [OLD_DAY], "a position from the future sees everything");
    run(pool, PUBLISH).await;
    run(pool, "update outbox set xid = '4000000000'").await;
    assert_eq!(drop_old(pool).await.unpublished, [OLD_DAY], "a transaction this server has not had");
}

#[tokio::test]
async fn dropping_needs_read_committed() {
    let database = with_old_day("isolation").await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let sql = "begin isolation level repeatable read; select outbox_partition_drop()";
    let error = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "25000");
}

#[tokio::test]
async fn the_inbox_forgets_days_and_strays_after_their_time() {
    let database = ledger::database("inbox_retention").await;
    let pool = &database.pool;
    run(
        pool,
        "do $$ declare day date := current_date - 40; begin
            execute format('create table inbox_old (like inbox including defaults)');
            execute format('alter table inbox attach partition inbox_old for values from (%L) to (%L)',
                           inbox_day_bound(day), inbox_day_bound(day + 1));
         end $$",
    )
    .await;
    let id_of = |days| {
        let time = Utc::now() - Days::new(days);
        Uuid::new_v7(Timestamp::from_unix(NoContext, time.timestamp() as u64, 0))
    };
    let take = "insert into inbox (consumer_group, message_id, received_at) values ('g', $1, $2)";
    for (id, days_ago) in [(id_of(40), 40), (id_of(0), 0), (Uuid::nil(), 40), (Uuid::max(), 1)] {
        let at = Utc::now() - Days::new(days_ago);
        sqlx::query(take).bind(id).bind(at).execute(pool).await.unwrap();
    }
    let dropped = drop_old(pool).await;
    assert_eq!((dropped.partitions, dropped.strays), (vec!["inbox_old".to_owned()], 1));
    let left: Vec<Uuid> =
        sqlx::query_scalar("select message_id from inbox order by 1").fetch_all(pool).await.unwrap();
    assert_eq!((left.len(), left[1]), (2, Uuid::max()));
    assert_eq!(drop_old(pool).await, Dropped::default());
    assert_eq!(upkeep::make(pool).await.unwrap(), 0, "what is dropped is not made again");
}

#[test]
fn the_inbox_knows_ids_for_longer_than_topics_keep_their_records() {
    let manifest = include_str!("../../../../schemas/topics.toml");
    let kept = manifest.lines().filter_map(|line| line.strip_prefix("retention_ms = "));
    let kept = kept.map(|ms| Duration::from_millis(ms.replace('_', "").parse().unwrap())).max().unwrap();
    assert!(Retention::default().inbox > kept + DAY, "topics keep {kept:?}");
}

/// Commits and drops after which the race below has been long enough.
const COMMITS: usize = 200;
const DROPS: usize = 10;
/// It comes to that within seconds.
const RACE_TIME_MAX: Duration = Duration::from_secs(240);

/// Appends to the old day with pauses before the commit, some rolled back; returns the ids it knows to be committed.
async fn write(url: String, seed: u64, stop: Arc<AtomicBool>, committed: Arc<Mutex<Vec<Uuid>>>) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let insert = "insert into outbox (message_id, topic, headers, created_at)
                  values ($1, 'a', '{}', '2020-01-01 12:00+00')";
    for turn in seed.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let id = Uuid::now_v7();
        let mut tx = connection.begin().await.unwrap();
        if turn % 3 == 0 {
            // The transaction's number is older than its row.
            sqlx::query("select pg_current_xact_id()").execute(&mut *tx).await.unwrap();
            tokio::time::sleep(Duration::from_millis(turn % 7)).await;
        }
        // The day is gone, or somebody waits to drop it: no row, no loss.
        if sqlx::query(insert).bind(id).execute(&mut *tx).await.is_err() {
            continue;
        }
        tokio::time::sleep(Duration::from_millis((turn * 7) % 31)).await;
        if turn % 11 != 0 && tx.commit().await.is_ok() {
            committed.lock().unwrap().push(id);
        }
        // Now and then nobody writes, and the day can go.
        tokio::time::sleep(Duration::from_millis((turn * 13) % 97)).await;
    }
}

/// Reads as the relay does: what a snapshot sees and the last one did not; then stores it as the position.
async fn publish_round(connection: &mut PgConnection, published: &mut HashSet<Uuid>) {
    let round = "select pg_current_snapshot()::text,
            array(select o.message_id from outbox o, outbox_relay r
                  where not pg_visible_in_snapshot(o.xid, r.position_from))";
    let (now, ids): (String, Vec<Uuid>) = sqlx::query_as(round).fetch_one(&mut *connection).await.unwrap();
    published.extend(ids);
    sqlx::query("update outbox_relay set position_from = $1::pg_snapshot")
        .bind(now)
        .execute(connection)
        .await
        .unwrap();
}

/// Writers, a relay and a dropper on the old day; returns how many committed rows the relay never saw.
async fn race(database: &waybill_testkit::TestDatabase) -> usize {
    let pool = database.pool.clone();
    let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let drops = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..4)
        .map(|n| {
            tokio::spawn(write(database.url.clone(), n * 1_000, Arc::clone(&stop), Arc::clone(&committed)))
        })
        .collect();
    let dropping = tokio::spawn({
        let (pool, stop, drops) = (pool.clone(), Arc::clone(&stop), Arc::clone(&drops));
        async move {
            while !stop.load(Ordering::SeqCst) {
                if drop_old(&pool).await.partitions == [OLD_DAY] {
                    drops.fetch_add(1, Ordering::SeqCst);
                    run(&pool, OLD_DAY_AGAIN).await;
                }
            }
        }
    });
    let mut relay = PgConnection::connect(&database.url).await.unwrap();
    let mut published = HashSet::new();
    let began = Instant::now();
    while committed.lock().unwrap().len() < COMMITS || drops.load(Ordering::SeqCst) < DROPS {
        assert!(began.elapsed() < RACE_TIME_MAX, "{} drops only", drops.load(Ordering::SeqCst));
        publish_round(&mut relay, &mut published).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    dropping.await.unwrap();
    publish_round(&mut relay, &mut published).await;
    let committed = committed.lock().unwrap();
    committed.iter().filter(|id| !published.contains(id)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_appends_to_an_old_day_while_it_is_dropped_loses_nothing() {
    let database = with_old_day("race").await;
    assert_eq!(race(&database).await, 0, "of {COMMITS} rows and more, over {DROPS} drops and more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_after_one_look_only_would_lose_rows() {
    let database = with_old_day("race_seen").await;
    let source: String = sqlx::query_scalar("select pg_get_functiondef('outbox_partition_drop'::regproc)")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    // Without the lock and the look after it.
    let lock = source.find("execute format('lock table").unwrap();
    let drop = source.find("execute format('drop table").unwrap();
    let one_look = format!("{}{}", &source[..lock], &source[drop..]);
    sqlx::raw_sql(AssertSqlSafe(one_look)).execute(&database.pool).await.unwrap();
    assert!(race(&database).await > 0, "the race above would not see the fault it is there for");
}
