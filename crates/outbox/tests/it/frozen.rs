//! A Postgres that hangs: connections stay open, nothing answers. Members stay in their groups and tell; pools get their
//! places back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::PgPool;
use waybill_outbox::MIGRATIONS;
use waybill_outbox::inbox::InboxProcessor;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool;
use waybill_telemetry::metrics;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{OwnPostgres, TestTopics};

use crate::ledger::{self, GROUP, Ledger, TOPIC, count};
use crate::members::{LIMIT, Member, assert_once_and_in_order, noted, send, send_many};

/// A server of this test's own with the crate's and the group's tables, and a service's pool.
async fn own_server() -> (OwnPostgres, PgPool) {
    let server = OwnPostgres::start().await;
    let pool = pool::connect(&server.url("postgres"), 2, "outbox-test").unwrap();
    MIGRATIONS.run(&pool).await.unwrap();
    ledger::tables(&pool).await;
    (server, pool)
}

/// Until the pool has no connection: all of them are closed, in use or not.
async fn all_closed(pool: &PgPool) {
    eventually_named("pool without a connection", LIMIT, async || (pool.size() == 0).then_some(())).await;
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

#[tokio::test]
async fn a_drainer_in_a_frozen_database_gives_up_its_look_and_hears_of_the_shutdown() {
    let (server, pool) = own_server().await;
    let shutdown = Shutdown::manual();
    let group = InboxProcessor::new(pool.clone(), ledger::PREFIX, Ledger::default());
    let drainer = tokio::spawn(group.drainer().run(shutdown.clone()));
    let mut other = pool.begin().await.unwrap();
    sqlx::query("lock table parked_keys").execute(&mut *other).await.unwrap();
    eventually_named("a statement of a look under way", LIMIT, async || {
        let waits = "select exists (select from pg_locks where not granted)";
        let waits: bool = sqlx::query_scalar(waits).fetch_one(&mut *other).await.unwrap();
        waits.then_some(())
    })
    .await;
    server.sigstop().await;
    shutdown.request();
    tokio::time::timeout(LIMIT, drainer).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_transaction_dropped_in_a_frozen_database_costs_the_pool_no_connection() {
    let (server, pool) = own_server().await;
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("update rows set n = n + 1").execute(&mut *tx).await.unwrap();
    server.sigstop().await;
    drop(tx);
    // The idle ones go when somebody asks for them.
    let closed = async || {
        let _ = pool.acquire().await;
        (pool.size() == 0).then_some(())
    };
    eventually_named("pool without a connection", LIMIT, closed).await;
    server.sigcont().await;
    let n: i32 = sqlx::query_scalar("select n from rows").fetch_one(&pool).await.unwrap();
    assert_eq!(n, 0, "it was rolled back");
}
