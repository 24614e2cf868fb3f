//! Processes killed, frozen and added, sessions cut, all under a steady load; then all heals, and every promise holds.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{Process, TestDatabase};

use crate::invariants;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::{Service, System};

/// Longest wait for one step of a fault.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);
/// How often everything is killed.
const KILL_ROUNDS: usize = 3;
/// How often every session is cut.
const CUTS: usize = 25;
/// Every table that a transaction of each service writes: a session that waits for it is between two statements, or
/// between the first and the last row of one.
const WRITTEN: [(Service, &[&str]); 3] = [
    (Service::Orders, &["inbox", "saga_instances", "saga_log", "orders", "outbox"]),
    (Service::Inventory, &["inbox", "reservations", "stock", "stock_ledger", "outbox"]),
    (Service::Payments, &["inbox", "payments", "sandbox_authorizations", "outbox"]),
];
/// A lease short enough to run out while a test waits.
const SHORT_LEASE: (&str, &str) = ("OUTBOX_RELAY_LEASE_MS", "1500");
/// Sagas that turn back and send again within seconds (two attempts and the last call before the pivot), and never give up
/// a step that must succeed.
pub(crate) const HASTY: [(&str, &str); 4] = [
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "1500"),
    ("WAYBILL_ORDERS_STEP_ATTEMPTS_MAX", "2"),
    ("WAYBILL_ORDERS_RETRY_ATTEMPTS_MAX", "100"),
    ("WAYBILL_ORDERS_SAGA_DEADLINE_MS", "20000"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_process_may_be_killed_at_any_time() {
    let settings = [&HASTY[..], &[SHORT_LEASE]].concat();
    let mut system = System::start_with("e2e_kills", &settings).await;
    load::stock_up(&Shop::new(&system)).await;
    let seed = load::seed();
    let mut dice = StdRng::seed_from_u64(seed);
    let load = Load::start(&system, seed);
    for _ in 0..KILL_ROUNDS {
        let mut order = [0, 1, 2, 3];
        order.shuffle(&mut dice);
        for which in order {
            pause(&mut dice, 200..1_200).await;
            let process = match which {
                3 => &mut system.relay,
                service => system.process(Service::ALL[service]),
            };
            process.kill9().await;
            pause(&mut dice, 0..300).await;
            process.restart();
        }
        invariants::hold_meanwhile(&system).await;
    }
    system.all_ready().await;
    invariants::hold(&system, &load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_leave_and_die_in_the_middle_of_a_batch() {
    let mut system = System::start("e2e_members").await;
    load::stock_up(&Shop::new(&system)).await;
    let seed = load::seed();
    let load = Load::start(&system, seed);
    come_and_go(&mut system, &mut StdRng::seed_from_u64(seed)).await;
    for (service, lock) in [
        (Service::Inventory, "lock table stock in exclusive mode"),
        (Service::Payments, "lock table payments in exclusive mode"),
        (Service::Orders, "lock table saga_instances in exclusive mode"),
    ] {
        killed_at(&mut system, service, lock, Duration::ZERO).await;
    }
    system.all_ready().await;
    invariants::hold(&system, &load.stop().await).await;
}

/// A second member of each group joins; one leaves as it should, one dies, one stays alone; those that began are back.
async fn come_and_go(system: &mut System, dice: &mut StdRng) {
    let [mut orders, mut inventory, mut payments] = Service::ALL.map(|service| system.member(service));
    for member in [&mut orders, &mut inventory, &mut payments] {
        member.wait_ready(STEP_TIMEOUT).await;
    }
    pause(dice, 500..1_500).await;
    assert_eq!(orders.terminate().await, Some(0), "{}", orders.output());
    inventory.kill9().await;
    system.payments.kill9().await;
    let mut third = system.member(Service::Inventory);
    third.wait_ready(STEP_TIMEOUT).await;
    assert_eq!(system.inventory.terminate().await, Some(0), "{}", system.inventory.output());
    pause(dice, 500..1_500).await;
    system.inventory.restart();
    system.payments.restart();
    system.all_ready().await;
    assert_eq!(payments.terminate().await, Some(0), "{}", payments.output());
    assert_eq!(third.terminate().await, Some(0), "{}", third.output());
}

/// The next batch gets as far as the locked table, and its process is killed there, after a while.
pub(crate) async fn killed_at(system: &mut System, service: Service, lock: &'static str, after: Duration) {
    let mut blocker = PgConnection::connect(&system.database(service).url).await.unwrap();
    let mut locked = blocker.begin().await.unwrap();
    sqlx::query(lock).execute(&mut *locked).await.unwrap();
    blocked(system.database(service)).await;
    tokio::time::sleep(after).await;
    system.process(service).kill9().await;
    locked.rollback().await.unwrap();
    system.process(service).restart();
}

/// Waits until a batch (the inbox was written to, so a transaction id is taken) waits for a lock.
pub(crate) async fn blocked(database: &TestDatabase) {
    let question = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and backend_xid is not null";
    eventually_named("a batch in the middle of its work", STEP_TIMEOUT, async || {
        let waiting: i64 = sqlx::query_scalar(question).fetch_one(&database.pool).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_may_be_frozen_and_sessions_cut_at_any_time() {
    let mut system = System::start_with("e2e_cuts", &[SHORT_LEASE]).await;
    load::stock_up(&Shop::new(&system)).await;
    let seed = load::seed();
    let load = Load::start(&system, seed);
    freeze_relays(&mut system).await;
    cut_sessions(&mut system, &mut StdRng::seed_from_u64(seed)).await;
    invariants::hold(&system, &load.stop().await).await;
}

/// Two relays share the databases out; one is frozen, the other takes its part over; the frozen one wakes and does no
/// harm.
async fn freeze_relays(system: &mut System) {
    let second = system.second_relay();
    eventually_named("the second relay", STEP_TIMEOUT, async || {
        reqwest::get(format!("{}/health", second.url)).await.is_ok().then_some(())
    })
    .await;
    for frozen in [&system.relay, &second, &system.relay] {
        eventually_named("a relay that publishes, to be frozen", STEP_TIMEOUT, async || {
            (leases_of(system, frozen).await > 0).then_some(())
        })
        .await;
        frozen.sigstop().await;
        eventually_named("the other relay to take over", STEP_TIMEOUT, async || {
            (leases_of(system, frozen).await == 0 && leases_valid(system).await == 3).then_some(())
        })
        .await;
        frozen.sigcont().await;
    }
    assert_eq!(system.relay.terminate().await, Some(0), "{}", system.relay.output());
    system.relay = second;
}

/// How many databases' leases are this relay's: a lease's owner is named by its process id.
async fn leases_of(system: &System, relay: &Process) -> i64 {
    let name = format!("%-{}-%", relay.pid().unwrap());
    let mut count = 0;
    for database in system.databases() {
        let own = sqlx::query_scalar("select count(*) from outbox_relay where owner like $1").bind(&name);
        let own: i64 = own.fetch_one(&database.pool).await.unwrap();
        count += own;
    }
    count
}

async fn leases_valid(system: &System) -> i64 {
    let mut count = 0;
    for database in system.databases() {
        let valid = "select count(*) from outbox_relay where lease_expires_at > clock_timestamp()";
        let valid: i64 = sqlx::query_scalar(valid).fetch_one(&database.pool).await.unwrap();
        count += valid;
    }
    count
}

/// Cuts every session of a service, again and again; then each service's in the middle of every table it writes.
async fn cut_sessions(system: &mut System, dice: &mut StdRng) {
    // The test's own sessions have no name.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and application_name in ('orders', 'inventory', 'payments', 'outbox-relay')";
    let mut sessions = 0;
    for _ in 0..CUTS {
        let database = system.databases()[dice.random_range(0..3)];
        let count: i64 = sqlx::query_scalar(cut).fetch_one(&database.pool).await.unwrap();
        sessions += count;
        pause(dice, 50..350).await;
    }
    assert!(sessions > i64::try_from(CUTS).unwrap(), "sessions were cut: {sessions}");
    for (service, tables) in WRITTEN {
        for table in tables {
            cut_at(system.database(service), service, table).await;
        }
    }
    system.all_ready().await;
    let processes: [&mut Process; 4] =
        [&mut system.orders, &mut system.inventory, &mut system.payments, &mut system.relay];
    for process in processes {
        assert!(process.pid().is_some(), "lost sessions end no process: {}", process.output());
    }
}

/// Cuts whichever sessions of the service come to this table next.
async fn cut_at(database: &TestDatabase, service: Service, table: &str) {
    let mut blocker = PgConnection::connect(&database.url).await.unwrap();
    let mut lock = blocker.begin().await.unwrap();
    let exclusive = AssertSqlSafe(format!("lock table {table} in exclusive mode"));
    sqlx::query(exclusive).execute(&mut *lock).await.unwrap();
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and application_name = $1 and wait_event_type = 'Lock'";
    eventually_named("a session that waits", STEP_TIMEOUT, async || {
        let cut: i64 = sqlx::query_scalar(cut).bind(service.name()).fetch_one(&database.pool).await.unwrap();
        (cut > 0).then_some(())
    })
    .await;
    lock.rollback().await.unwrap();
}

async fn pause(dice: &mut StdRng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(dice.random_range(ms))).await;
}
