//! A pool hands out no connection with an open transaction, and ends what takes too long.

use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgPool};
use waybill_runtime::pool::{self, Checkout};

/// Tries enough that the unguarded pool fails: most of them do.
const CANCELLED_BEGINS: usize = 300;

fn url() -> String {
    std::env::var("WAYBILL_POSTGRES_URL").expect("WAYBILL_POSTGRES_URL is not set: run `cargo xtask test`")
}

fn guarded_pool() -> PgPool {
    pool::connect(&url(), 2, "runtime-test").unwrap()
}

/// Sends `begin` on a connection of the pool, polls for the answer a few times, then drops it and gives the connection
/// back: what a client's hang-up does to a handler.
async fn cancel_a_begin(pool: &PgPool, polls: usize) {
    let mut connection = pool.acquire().await.unwrap();
    let mut begin = Box::pin(connection.begin());
    for _ in 0..=polls {
        if begin.as_mut().now_or_never().is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Writes rows after cancelled `begin`s; returns how many writes were acknowledged and are not there.
async fn lost_writes(pool: PgPool, hint: &str) -> usize {
    let table = format!("cancelled_begin_{hint}_{}", std::process::id());
    let create = format!("create table {table} (id int primary key)");
    // Another connection sees only what was committed.
    let mut other = sqlx::PgConnection::connect(&url()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut other).await.unwrap();
    let insert = format!("insert into {table} values ($1)");
    for number in 0..CANCELLED_BEGINS {
        cancel_a_begin(&pool, number % 12).await;
        let written = sqlx::query(sqlx::AssertSqlSafe(insert.clone())).bind(i32::try_from(number).unwrap());
        written.execute(&pool).await.unwrap();
    }
    let count = format!("select count(*) from {table}");
    let committed: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut other).await.unwrap();
    pool.close().await;
    let drop = format!("drop table {table}");
    sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&mut other).await.unwrap();
    CANCELLED_BEGINS - usize::try_from(committed).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_begin_loses_no_later_write() {
    assert_eq!(lost_writes(guarded_pool(), "guarded").await, 0, "acknowledged writes are committed");
}

/// What the guard is there for. When this fails, sqlx has mended it, and the guard may go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_guard_a_cancelled_begin_loses_later_writes() {
    let unguarded = PgPoolOptions::new().max_connections(2).connect_lazy(&url()).unwrap();
    assert!(lost_writes(unguarded, "unguarded").await > 0, "this test does not see the trap");
}

#[tokio::test]
async fn a_checked_out_connection_is_closed_unless_it_is_given_back() {
    // One: whoever comes next has it, or a new one once it is closed.
    let pool = pool::connect(&url(), 1, "runtime-test").unwrap();
    let backend = async |checkout: &mut Checkout| -> i32 {
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut **checkout).await.unwrap()
    };
    let mut first = Checkout::of(&pool).await.unwrap();
    let kept = backend(&mut first).await;
    first.give_back();
    let mut second = Checkout::of(&pool).await.unwrap();
    assert_eq!(backend(&mut second).await, kept, "it was given back");
    let mut sleeping = Box::pin(sqlx::query("select pg_sleep(60)").execute(&mut *second));
    assert!(sleeping.as_mut().now_or_never().is_none(), "it is cut off in the middle");
    drop(sleeping);
    drop(second);
    let mut third = Checkout::of(&pool).await.unwrap();
    assert_ne!(backend(&mut third).await, kept, "it was closed");
    third.give_back();
}

#[tokio::test]
async fn sessions_carry_the_time_limits() {
    let pool = guarded_pool();
    for (setting, expected) in [
        ("statement_timeout", "10s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("client_connection_check_interval", "1s"),
    ] {
        let shown: String =
            sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&pool).await.unwrap();
        assert_eq!(shown, expected, "{setting}");
    }
}

#[tokio::test]
async fn conflicts_and_absence_are_transient_and_mistakes_are_not() {
    let pool = guarded_pool();
    let mistake = sqlx::query("select 1 / 0").execute(&pool).await.unwrap_err();
    assert!(!pool::is_transient(&mistake), "{mistake}");
    let cancelled =
        sqlx::query("do $$ begin raise sqlstate '40001'; end $$").execute(&pool).await.unwrap_err();
    assert!(pool::is_transient(&cancelled), "{cancelled}");
    let away = pool::connect("postgres://nobody@127.0.0.1:1/none", 2, "runtime-test").unwrap();
    let error = tokio::time::timeout(Duration::from_secs(30), sqlx::query("select 1").execute(&away)).await;
    assert!(pool::is_transient(&error.expect("it gives up in time").unwrap_err()));
}
