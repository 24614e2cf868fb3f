//! A pool hands out no connection with an open transaction, and ends what takes too long.

use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::{Connection as _, PgPool};
use waybill_runtime::pool;

/// Tries enough that the unguarded pool fails: 52 of 506 were seen to.
const CANCELLED_BEGINS: usize = 300;

fn guarded_pool() -> PgPool {
    let url = std::env::var("WAYBILL_POSTGRES_URL")
        .expect("WAYBILL_POSTGRES_URL is not set: run `cargo xtask test`");
    pool::connect(&url, 2, "runtime-test").unwrap()
}

/// Polls `begin()` a few times, then drops it: what a client's hang-up does to a handler.
async fn cancel_a_begin(pool: &PgPool, polls: usize) {
    let mut begin = Box::pin(pool.begin());
    for _ in 0..polls {
        if begin.as_mut().now_or_never().is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_begin_loses_no_later_write() {
    let pool = guarded_pool();
    let table = format!("cancelled_begin_{}", std::process::id());
    let create = format!("create table {table} (id int primary key)");
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&pool).await.unwrap();
    let insert = format!("insert into {table} values ($1)");
    for number in 0..CANCELLED_BEGINS {
        cancel_a_begin(&pool, number % 12).await;
        let written = sqlx::query(sqlx::AssertSqlSafe(insert.clone())).bind(i32::try_from(number).unwrap());
        written.execute(&pool).await.unwrap();
    }
    let count = format!("select count(*) from {table}");
    // Another connection sees only what was committed.
    let url = std::env::var("WAYBILL_POSTGRES_URL").unwrap();
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let committed: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut other).await.unwrap();
    let drop = format!("drop table {table}");
    pool.close().await;
    sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&mut other).await.unwrap();
    assert_eq!(usize::try_from(committed).unwrap(), CANCELLED_BEGINS, "acknowledged writes are committed");
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
