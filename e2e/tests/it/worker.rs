//! The payments worker killed before its call to the provider, and after the call before it recorded what came of it.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use waybill_testkit::polling::eventually_named;

use crate::invariants;
use crate::shop::Shop;
use crate::system::System;

const STEP_TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_die_before_and_after_its_call() {
    let mut system = System::start("e2e_worker").await;
    let (before, after, accepted) = {
        let shop = Shop::new(&system);
        shop.product("tea", 700, 10).await;
        // A slow call: taken by the worker, and not at the provider for a while.
        let before = shop.order(&[("tea", 1)], "tok_slow_7000").await;
        let after = shop.order(&[("tea", 1)], "tok_slow_1500").await;
        (before, after, shop.accepted())
    };
    taken(&system, &[&before, &after]).await;
    // What is recorded from now on waits for the table; the shorter call gets through to the provider, the other is
    // on its way when the process dies.
    let mut blocker = PgConnection::connect(&system.payments_db.url).await.unwrap();
    let mut lock = blocker.begin().await.unwrap();
    sqlx::query("lock table payments in exclusive mode").execute(&mut *lock).await.unwrap();
    eventually_named("the call's outcome to wait for its record", STEP_TIMEOUT, async || {
        (known(&system, &after).await && recording(&system).await).then_some(())
    })
    .await;
    assert!(!known(&system, &before).await, "the slower call has not arrived");
    system.payments.kill9().await;
    lock.rollback().await.unwrap();
    System::restart(&mut system.payments).await;
    let shop = Shop::new(&system);
    for order in &accepted {
        confirmed(&system, &order.id).await;
        let payment = sqlx::query_as(
            "select count(*), sum(captured_minor)::bigint from sandbox_authorizations where key like $1 || ':%'",
        );
        let payment: (i64, i64) = payment.bind(&order.id).fetch_one(&system.payments_db.pool).await.unwrap();
        assert_eq!(payment, (1, 700), "one authorization, captured once");
    }
    shop.stock_becomes("tea", (8, 0, 2)).await;
    invariants::hold(&system, &accepted).await;
}

/// Waits until the worker has taken all of these.
async fn taken(system: &System, orders: &[&str]) {
    let orders: Vec<String> = orders.iter().map(|id| (*id).to_owned()).collect();
    eventually_named("the worker to take the payments", STEP_TIMEOUT, async || {
        let taken: i64 = sqlx::query_scalar(
            "select count(*) from payments where order_id::text = any($1) and tries > 0 and due_at > now() + interval '5 seconds'",
        )
        .bind(&orders)
        .fetch_one(&system.payments_db.pool)
        .await
        .unwrap();
        (taken == 2).then_some(())
    })
    .await;
}

/// Whether the provider has heard of the order's payment.
async fn known(system: &System, order: &str) -> bool {
    let known =
        sqlx::query_scalar("select exists (select from sandbox_authorizations where key like $1 || ':%')");
    known.bind(order).fetch_one(&system.payments_db.pool).await.unwrap()
}

/// Whether a session waits for the payments table with something to write.
async fn recording(system: &System) -> bool {
    let waiting = "select exists (select from pg_stat_activity where datname = current_database()
                   and wait_event_type = 'Lock' and query ilike '%payments%')";
    sqlx::query_scalar(waiting).fetch_one(&system.payments_db.pool).await.unwrap()
}

async fn confirmed(system: &System, order: &str) {
    eventually_named("the order's saga to be completed", STEP_TIMEOUT * 2, async || {
        let done: Option<String> = sqlx::query_scalar(
            "select status from saga_instances where saga = 'place-order' and key = $1::uuid",
        )
        .bind(order)
        .fetch_optional(&system.orders_db.pool)
        .await
        .unwrap();
        (done.as_deref() == Some("completed")).then_some(())
    })
    .await;
}
