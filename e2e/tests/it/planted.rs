//! The checks themselves: each fault that is planted into books, logs and outboxes must be seen by the check that is for it,
//! else they prove nothing.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use waybill_testkit::polling::eventually_named;

use crate::deliveries;
use crate::invariants;
use crate::shop::Shop;
use crate::system::Service::{self, Inventory, Orders, Payments};
use crate::system::System;

/// Longest wait until a session has been idle for five seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until a topic is read to its end.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// What is done to a table behind its service's back, and the check of `waybillctl verify` that is to see it.
struct Fault {
    what: &'static str,
    check: &'static str,
    service: Service,
    table: &'static str,
    plant: &'static str,
}

const fn fault(
    what: &'static str,
    check: &'static str,
    service: Service,
    table: &'static str,
    plant: &'static str,
) -> Fault {
    Fault { what, check, service, table, plant }
}

/// Orders against payments and reservations.
const BOOKS: [Fault; 12] = [
    fault(
        "money is kept of a rejected order",
        "books",
        Payments,
        "payments",
        "update payments set captured_minor = 1 where state = 'declined'",
    ),
    fault(
        "stock is held for a rejected order",
        "books",
        Inventory,
        "reservations",
        "update reservations set state = 'reserved' where state = 'released'",
    ),
    fault(
        "a confirmed order's money is given back",
        "books",
        Payments,
        "payments",
        "update payments set state = 'refunded', refunded_minor = captured_minor where state = 'captured'",
    ),
    fault(
        "less is taken than a confirmed order costs",
        "books",
        Payments,
        "payments",
        "update payments set captured_minor = captured_minor - 1 where state = 'captured'",
    ),
    fault(
        "a confirmed order's stock has not left",
        "books",
        Inventory,
        "reservations",
        "update reservations set state = 'reserved' where state = 'committed'",
    ),
    fault(
        "a cancelled order's money is kept",
        "books",
        Payments,
        "payments",
        "update payments set state = 'captured', refunded_minor = 0 where state = 'refunded'",
    ),
    fault(
        "a cancelled order's stock is not back",
        "books",
        Inventory,
        "reservations",
        "update reservations set state = 'committed' where state = 'restocked'",
    ),
    fault(
        "an order is paid for twice",
        "books",
        Payments,
        "payments",
        "insert into payments (order_id, attempt, version, state, currency, correlation_id)
         select order_id, 2, version, 'voided', currency, correlation_id from payments where state = 'captured'",
    ),
    fault(
        "a payment is in another currency",
        "books",
        Payments,
        "payments",
        "update payments set currency = 'USD' where state = 'captured'",
    ),
    fault(
        "other pieces are sent than were ordered",
        "books",
        Inventory,
        "reservations",
        r#"update reservations set lines = replace(lines::text, '"tea"', '"tee"')::jsonb where state = 'committed'"#,
    ),
    fault(
        "a payment without an order",
        "books",
        Payments,
        "payments",
        "insert into payments (order_id, attempt, version, state, correlation_id)
         values (gen_random_uuid(), 1, 1, 'voided', gen_random_uuid())",
    ),
    fault(
        "a reservation without an order",
        "books",
        Inventory,
        "reservations",
        "insert into reservations (order_id, version, state) values (gen_random_uuid(), 1, 'released')",
    ),
];

/// What inventory and the provider count.
const COUNTED: [Fault; 5] = [
    fault("a piece is gone", "stock", Inventory, "stock", "update stock set available = available - 1"),
    fault(
        "a piece is reserved for nobody",
        "stock",
        Inventory,
        "stock",
        "update stock set available = available - 1, reserved = reserved + 1",
    ),
    fault(
        "a movement is not in the ledger",
        "reservations",
        Inventory,
        "stock_ledger",
        "delete from stock_ledger where ctid = (select ctid from stock_ledger where kind = 'release' limit 1)",
    ),
    fault(
        "the provider holds money that nobody will take",
        "provider",
        Payments,
        "sandbox_authorizations",
        "update sandbox_authorizations set state = 'approved' where state = 'declined'",
    ),
    fault(
        "the provider took money twice",
        "provider",
        Payments,
        "sandbox_authorizations",
        "insert into sandbox_authorizations (key, state, amount_minor, captured_minor)
         select replace(key, ':1', ':2'), state, amount_minor, captured_minor from sandbox_authorizations
         where captured_minor > 0 limit 1",
    ),
];

/// Orders, their sagas and their keys.
const SAGAS: [Fault; 8] = [
    fault(
        "a step is taken back after the pivot",
        "saga logs",
        Orders,
        "saga_log",
        r#"update saga_log set entry = replace(entry::text, '"phase":"act"', '"phase":"compensate"')::json
           where entry::text like '%CapturePayment%'"#,
    ),
    fault(
        "a saga waits for an operator, and its log says that it ended",
        "saga logs",
        Orders,
        "saga_instances",
        "update saga_instances set status = 'stuck' where status = 'compensated'",
    ),
    fault(
        "a saga runs, and nobody looks at it again",
        "sagas",
        Orders,
        "saga_instances",
        "update saga_instances set status = 'running', wake_at = null where saga = 'cancel-order'",
    ),
    fault(
        "a saga has ended, and something is still due",
        "sagas",
        Orders,
        "saga_instances",
        "update saga_instances set due_at = now() where status = 'compensated'",
    ),
    fault(
        "an order's saga is lost",
        "sagas",
        Orders,
        "saga_instances",
        "delete from saga_instances where saga = 'place-order' and status = 'compensated'",
    ),
    fault(
        "a saga has no order",
        "sagas",
        Orders,
        "saga_instances",
        "insert into saga_instances (saga, key, version, status, state, data, sequences, correlation_id)
         select saga, gen_random_uuid(), version, status, state, data, sequences, correlation_id
         from saga_instances where saga = 'cancel-order'",
    ),
    fault(
        "an accepted cancel came to nothing",
        "sagas",
        Orders,
        "orders",
        "update orders set status = 'CONFIRMED', reason = null where status = 'CANCELLED'",
    ),
    fault(
        "an order has no key",
        "keys",
        Orders,
        "idempotency_keys",
        "delete from idempotency_keys where key = (select min(key) from idempotency_keys)",
    ),
];

/// What was said and heard.
const MESSAGES: [Fault; 5] = [
    fault(
        "the inbox has lost a message",
        "inboxes",
        Inventory,
        "inbox",
        "delete from inbox where message_id = (select message_id from inbox limit 1)",
    ),
    fault(
        "the inbox has a message that nobody sent",
        "inbox origins",
        Payments,
        "inbox",
        "insert into inbox (consumer_group, message_id) values ('payments', gen_random_uuid())",
    ),
    fault(
        "a message was published that nobody wrote",
        "topics",
        Orders,
        "outbox",
        "delete from outbox where id = (select min(id) from outbox where topic like '%orders.events')",
    ),
    fault(
        "a message says something else than was written",
        "topics",
        Inventory,
        "outbox",
        r"update outbox set payload = payload || '\x00' where id = (select min(id) from outbox where topic like '%inventory.events')",
    ),
    fault(
        "a key does not count on",
        "sequences",
        Orders,
        "outbox",
        "delete from outbox where id = (select min(id) from outbox where topic like '%payments.commands')",
    ),
];

/// What waits behind a failure.
const LETTERS: [Fault; 4] = [
    fault(
        "a dead letter is not in its topic",
        "dead letters",
        Payments,
        "dead_letters",
        "insert into dead_letters (id, consumer_group, topic, partition, \"offset\", headers, error_class, error_message, attempts)
         values (uuidv7(), 'payments', 'payments.commands', 0, 0, '[]', 'planted', 'planted', 1)",
    ),
    fault(
        "a key waits for a dead letter that is not there",
        "dead letters",
        Payments,
        "parked_keys",
        "insert into parked_keys (consumer_group, key, state, dead_letter_id) values ('payments', 'k', 'blocked', uuidv7())",
    ),
    fault(
        "a parked key's messages are lost",
        "dead letters",
        Payments,
        "parked_keys",
        "insert into parked_keys (consumer_group, key, state, held_count) values ('payments', 'k', 'retrying', 1)",
    ),
    fault(
        "a parked key's bytes are miscounted",
        "dead letters",
        Payments,
        "parked_keys",
        "insert into parked_keys (consumer_group, key, state, held_bytes) values ('payments', 'k', 'retrying', 1)",
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
    for fault in BOOKS.iter().chain(&COUNTED).chain(&SAGAS).chain(&MESSAGES).chain(&LETTERS) {
        seen(&system, fault).await;
    }
    leases(&system).await;
    open_transaction(&system).await;
    invariants::hold(&system, &shop.accepted()).await;
    repeated_with_another_value(&system).await;
}

/// A record that comes twice is no fault, one that comes again with another value is. It stays: nobody reads this topic, and
/// nothing comes after.
async fn repeated_with_another_value(system: &System) {
    let mut record = system.topics.read_to_end("orders.events", READ_TIMEOUT).await.swap_remove(0);
    deliveries::again(system, "orders.events", &record).await;
    let repeated = system.verify().await;
    assert_eq!(repeated.code, Some(0), "{}", repeated.output);
    record.payload = Some(b"another".to_vec());
    deliveries::again(system, "orders.events", &record).await;
    system.verify().await.seen_by("topics", "a message is repeated with another value");
}

/// A relay's row that nobody can take over. One of its own: the relay at work writes the other all the time.
async fn leases(system: &System) {
    let pool = &system.orders_db.pool;
    for (what, row) in [
        ("an owner without a lease", "'x', null, 1, '1:1:'"),
        ("a lease without an end", "'x', 'infinity', 1, '1:1:'"),
        ("an owner without an epoch", "'x', now(), 0, '1:1:'"),
        ("a position of another server", "null, null, 1, '1:999999999999:'"),
    ] {
        let plant = format!(
            "insert into outbox_relay (name, owner, lease_expires_at, epoch, position_from) values ('planted', {row})"
        );
        sqlx::query(AssertSqlSafe(plant)).execute(pool).await.unwrap();
        system.verify().await.seen_by("relay", what);
        sqlx::query("delete from outbox_relay where name = 'planted'").execute(pool).await.unwrap();
    }
}

/// A session that nobody will end: it is no service's.
async fn open_transaction(system: &System) {
    let mut conn = PgConnection::connect(&system.inventory_db.url).await.unwrap();
    sqlx::raw_sql("set idle_in_transaction_session_timeout = 0; begin; select 1")
        .execute(&mut conn)
        .await
        .unwrap();
    let idle = "select count(*) from pg_stat_activity where datname = current_database()
                and state = 'idle in transaction' and state_change < clock_timestamp() - interval '5 seconds'";
    eventually_named("a session that is idle for long", IDLE_TIMEOUT, async || {
        let idle: i64 = sqlx::query_scalar(idle).fetch_one(&system.inventory_db.pool).await.unwrap();
        (idle > 0).then_some(())
    })
    .await;
    system.verify().await.seen_by("sessions", "a transaction is left open");
    sqlx::raw_sql("rollback").execute(&mut conn).await.unwrap();
}

/// Plants it, has `waybillctl verify` look, and takes it out again.
async fn seen(system: &System, fault: &Fault) {
    let Fault { what, check, service, table, plant } = fault;
    let mut conn = PgConnection::connect(&system.database(*service).url).await.unwrap();
    keep(&mut conn, table).await;
    let planted = sqlx::query(*plant).execute(&mut conn).await;
    let planted = planted.unwrap_or_else(|error| panic!("not planted: {what}: {error}"));
    assert!(planted.rows_affected() > 0, "nothing planted: {what}");
    system.verify().await.seen_by(check, what);
    put_back(&mut conn, table).await;
}

async fn keep(conn: &mut PgConnection, table: &str) {
    let keep = format!("create temporary table kept as table {table}");
    sqlx::query(AssertSqlSafe(keep)).execute(conn).await.unwrap();
}

async fn put_back(conn: &mut PgConnection, table: &str) {
    // Foreign keys are not looked at: the rows are those that were there. What is computed is computed again.
    let columns = "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
                   where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = ''";
    let columns: String = sqlx::query_scalar(columns).bind(table).fetch_one(&mut *conn).await.unwrap();
    let put_back = format!(
        "set session_replication_role = replica;
         delete from {table};
         insert into {table} ({columns}) overriding system value select {columns} from kept"
    );
    sqlx::raw_sql(AssertSqlSafe(put_back)).execute(conn).await.unwrap();
}
