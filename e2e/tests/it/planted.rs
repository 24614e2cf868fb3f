//! The checks themselves: each fault that is planted into books, logs and outboxes must be seen, else they prove nothing.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::invariants;
use crate::shop::Shop;
use crate::system::{Service, System};

/// What is done to a table behind its service's back.
struct Fault {
    what: &'static str,
    service: Service,
    table: &'static str,
    plant: &'static str,
}

const fn fault(what: &'static str, service: Service, table: &'static str, plant: &'static str) -> Fault {
    Fault { what, service, table, plant }
}

const FAULTS: [Fault; 15] = [
    fault(
        "money is kept of a rejected order",
        Service::Payments,
        "payments",
        "update payments set captured_minor = 1 where state = 'declined'",
    ),
    fault(
        "a confirmed order's money is given back",
        Service::Payments,
        "payments",
        "update payments set state = 'refunded', refunded_minor = captured_minor where state = 'captured'",
    ),
    fault(
        "the provider holds money that nobody will take",
        Service::Payments,
        "sandbox_authorizations",
        "update sandbox_authorizations set state = 'approved' where state = 'declined'",
    ),
    fault(
        "the provider took money twice",
        Service::Payments,
        "sandbox_authorizations",
        "insert into sandbox_authorizations (key, state, amount_minor, captured_minor)
         select replace(key, ':1', ':2'), state, amount_minor, captured_minor from sandbox_authorizations
         where captured_minor > 0 limit 1",
    ),
    fault("a piece is gone", Service::Inventory, "stock", "update stock set available = available - 1"),
    fault(
        "a piece is reserved for nobody",
        Service::Inventory,
        "stock",
        "update stock set available = available - 1, reserved = reserved + 1",
    ),
    fault(
        "a movement is not in the ledger",
        Service::Inventory,
        "stock_ledger",
        "delete from stock_ledger where ctid = (select ctid from stock_ledger where kind = 'release' limit 1)",
    ),
    fault(
        "a reservation without an order",
        Service::Inventory,
        "reservations",
        "insert into reservations (order_id, version, state) values (gen_random_uuid(), 1, 'released')",
    ),
    fault(
        "the inbox has lost a message",
        Service::Inventory,
        "inbox",
        "delete from inbox where message_id = (select message_id from inbox limit 1)",
    ),
    fault(
        "the inbox has a message that nobody sent",
        Service::Payments,
        "inbox",
        "insert into inbox (consumer_group, message_id) values ('payments', gen_random_uuid())",
    ),
    fault(
        "a message was published that nobody wrote",
        Service::Orders,
        "outbox",
        "delete from outbox where id = (select min(id) from outbox where topic like '%orders.events')",
    ),
    fault(
        "a step is taken back after the pivot",
        Service::Orders,
        "saga_log",
        r#"update saga_log set entry = replace(entry::text, '"phase":"act"', '"phase":"compensate"')::json
           where entry::text like '%CapturePayment%'"#,
    ),
    fault(
        "a saga waits for an operator",
        Service::Orders,
        "saga_instances",
        "update saga_instances set status = 'stuck' where status = 'compensated'",
    ),
    fault(
        "an order has no key",
        Service::Orders,
        "idempotency_keys",
        "delete from idempotency_keys where key = (select min(key) from idempotency_keys)",
    ),
    fault(
        "an accepted cancel came to nothing",
        Service::Orders,
        "orders",
        "update orders set status = 'CONFIRMED', reason = null where status = 'CANCELLED'",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_fault_is_seen() {
    let system = System::start("e2e_planted").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 100).await;
    for (token, end) in
        [("tok_approve", "CONFIRMED"), ("tok_decline", "REJECTED"), ("tok_approve", "CONFIRMED")]
    {
        let id = shop.order(&[("tea", 2)], token).await;
        shop.becomes(&id, end).await;
    }
    let last = shop.accepted().pop().unwrap().id;
    shop.cancel(&last).await;
    shop.becomes(&last, "CANCELLED").await;
    invariants::hold(&system, &shop.accepted()).await;
    for fault in FAULTS {
        let mut conn = PgConnection::connect(&system.database(fault.service).url).await.unwrap();
        keep(&mut conn, fault.table).await;
        let touched = sqlx::query(fault.plant).execute(&mut conn).await.unwrap();
        assert!(touched.rows_affected() > 0, "nothing planted: {}", fault.what);
        let seen = AssertUnwindSafe(invariants::hold_now(&system, &shop.accepted(), 0)).catch_unwind().await;
        assert!(seen.is_err(), "not seen: {}", fault.what);
        put_back(&mut conn, fault.table).await;
    }
    invariants::hold(&system, &shop.accepted()).await;
}

async fn keep(conn: &mut PgConnection, table: &str) {
    let keep = format!("create temporary table kept as table {table}");
    sqlx::query(AssertSqlSafe(keep)).execute(conn).await.unwrap();
}

async fn put_back(conn: &mut PgConnection, table: &str) {
    // Foreign keys are not looked at: the rows are those that were there.
    let put_back = format!(
        "set session_replication_role = replica;
         delete from {table};
         insert into {table} overriding system value select * from kept"
    );
    sqlx::raw_sql(AssertSqlSafe(put_back)).execute(conn).await.unwrap();
}
