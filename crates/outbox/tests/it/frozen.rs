//! A Postgres that hangs: connections stay open, nothing answers. Members stay in their groups and tell; pools get their
//! places back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinHandle;
use waybill_outbox::inbox::InboxProcessor;
use waybill_outbox::operate::{replays, retention};
use waybill_outbox::retry::Policy;
use waybill_outbox::{MIGRATIONS, upkeep};
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool;
use waybill_telemetry::metrics;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{OwnPostgres, TcpSwitch, TestTopics};

use crate::ledger::{self, GROUP, Ledger, TOPIC, count};
use crate::members::{LIMIT, Member, assert_once_and_in_order, noted, send, send_many};

/// A server of this test's own with the crate's and the group's tables, and a service's pool.
async fn own_server() -> (OwnPostgres, PgPool) {
    let server = OwnPostgres::start().await;
    let pool = pool::connect(&server.url("postgres"), 2, "outbox-test").unwrap();
    MIGRATIONS.run(&pool).await.unwrap();
    ledger::tables(&pool).await;
    at_rest(&pool, 0).await;
    (server, pool)
}

/// Every connection but so many is back in the pool: sqlx asks each on its way there whether it lives, and waits for that
/// without a limit, until the server thaws.
async fn at_rest(pool: &PgPool, in_use: usize) {
    let idle = async || (pool.num_idle() + in_use == pool.size() as usize).then_some(());
    eventually_named("idle connections", LIMIT, idle).await;
}

/// Until the pool has no connection: all of them are closed, in use or not.
async fn all_closed(pool: &PgPool) {
    eventually_named("pool without a connection", LIMIT, async || (pool.size() == 0).then_some(())).await;
}

/// The same while somebody asks for connections: then the idle ones go.
async fn none_left(pool: &PgPool) {
    let closed = async || {
        let _ = pool.acquire().await;
        (pool.size() == 0).then_some(())
    };
    eventually_named("pool without a connection", LIMIT, closed).await;
}

#[tokio::test]
async fn a_batch_in_a_frozen_database_is_given_up_and_done_once_when_it_thaws() {
    let (server, pool) = own_server().await;
    let topics = TestTopics::create(&[(TOPIC, 2)]).await;
    let ledger = Ledger::default();
    let mut config = Member::config(&topics);
    config.batch_time_max = Duration::from_secs(3);
    let member =
        Member::start_with(config, InboxProcessor::new(pool.clone(), &topics.prefix, ledger.clone()));
    send_many(&topics, 0, 35).await;
    noted(&pool, 35).await;
    send(&topics, &ledger::envelope("key-frozen", 1), b"wait").await;
    let waits = async || ledger.waits.load(Ordering::SeqCst).then_some(());
    eventually_named("a batch in its transaction", LIMIT, waits).await;
    server.sigstop().await;
    ledger.may_go_on.store(true, Ordering::SeqCst);
    member.failing("not handled within").await;
    all_closed(&pool).await;
    send_many(&topics, 35, 70).await;
    server.sigcont().await;
    noted(&pool, 71).await;
    let works = async || member.status.check().ok();
    eventually_named("status without a failure", LIMIT, works).await;
    member.stop().await;
    assert_once_and_in_order(&pool, 71).await;
    assert_eq!(count(&pool, "dead_letters").await, 0, "it was no message's fault");
    let assigned = format!(r#"consumer_assignments_total{{group="{}{GROUP}"}} 1"#, topics.prefix);
    assert!(metrics::render().lines().any(|line| line == assigned), "it stayed in its group");
}

/// A loop over a pool of its own, and the table that its first statement waits for.
type Loop = (&'static str, Box<dyn FnOnce(PgPool, Shutdown) -> JoinHandle<()>>);

/// Every loop of this crate.
fn loops() -> Vec<Loop> {
    let drains = |pool, shutdown| {
        let group = InboxProcessor::new(pool, ledger::PREFIX, Ledger::default());
        tokio::spawn(group.drainer().run(shutdown))
    };
    let drives =
        |pool, shutdown| tokio::spawn(replays::run(pool, String::new(), Policy::default(), shutdown));
    let forgets = |pool, shutdown| tokio::spawn(retention::run(pool, Duration::from_secs(1), shutdown));
    vec![
        ("parked_keys", Box::new(drains)),
        ("replays", Box::new(drives)),
        ("dead_letters", Box::new(forgets)),
        ("inbox", Box::new(upkeep::spawn)),
    ]
}

#[tokio::test]
async fn loops_whose_database_fell_silent_give_up_and_hear_of_the_shutdown() {
    let (server, pool) = own_server().await;
    let shutdown = Shutdown::manual();
    let mut cut_off = Vec::new();
    for (table, start) in loops() {
        let (switch, through) = TcpSwitch::in_front_of(&server.url("postgres")).await;
        let mut other = pool.begin().await.unwrap();
        let lock = format!("lock table {table} in access exclusive mode");
        sqlx::query(AssertSqlSafe(lock)).execute(&mut *other).await.unwrap();
        let task = start(pool::connect(&through, 1, "outbox-test").unwrap(), shutdown.clone());
        eventually_named("a statement under way", LIMIT, async || {
            let waits = "select exists (select from pg_locks where not granted)";
            let waits: bool = sqlx::query_scalar(waits).fetch_one(&mut *other).await.unwrap();
            waits.then_some(())
        })
        .await;
        switch.fall_silent();
        other.rollback().await.unwrap();
        cut_off.push((table, task, switch));
    }
    shutdown.request();
    for (table, task, _switch) in cut_off {
        let ended = tokio::time::timeout(LIMIT, task).await;
        ended.unwrap_or_else(|_| panic!("it still waits for {table}")).unwrap();
    }
}

#[tokio::test]
async fn a_statement_dropped_in_a_frozen_database_costs_the_pool_no_connection() {
    let (server, pool) = own_server().await;
    let asked = pool.clone();
    let asking = tokio::spawn(async move { sqlx::query("select pg_sleep(8)").execute(&asked).await });
    eventually_named("a statement under way", LIMIT, async || {
        let sleeps = "select exists (select from pg_stat_activity where wait_event = 'PgSleep')";
        let sleeps: bool = sqlx::query_scalar(sleeps).fetch_one(&pool).await.unwrap();
        sleeps.then_some(())
    })
    .await;
    at_rest(&pool, 1).await;
    server.sigstop().await;
    asking.abort();
    none_left(&pool).await;
}

#[tokio::test]
async fn a_transaction_dropped_in_a_frozen_database_costs_the_pool_no_connection() {
    let (server, pool) = own_server().await;
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("update rows set n = n + 1").execute(&mut *tx).await.unwrap();
    server.sigstop().await;
    drop(tx);
    none_left(&pool).await;
    server.sigcont().await;
    let n: i32 = sqlx::query_scalar("select n from rows").fetch_one(&pool).await.unwrap();
    assert_eq!(n, 0, "it was rolled back");
}
