//! Services killed between any two statements of a transaction: real processes that end themselves by SIGKILL at named places.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use waybill_testkit::polling::eventually_named;

use crate::faults::HASTY;
use crate::invariants;
use crate::journal::Accepted;
use crate::letters::settled;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::{READY_TIMEOUT, Service, System};

/// A batch of prices and replies: `begin`, inbox, prices recorded, sagas loaded, saved with their log, orders locked, second
/// sagas started, orders saved, outbox, `commit`, offsets. Each place lies between two of them; where a batch often comes to, the
/// second time, so that one has gone well before.
const BATCH: [&str; 10] = [
    "batch_taken:2",
    "prices_recorded",
    "saga_loaded:2",
    "saga_saved:2",
    "orders_locked:2",
    "saga_started",
    "orders_saved:2",
    "batch_handled:2",
    "batch_said:2",
    "batch_committed:2",
];
/// How many members die beside each other: fewer than partitions of a topic, so that each gets one.
const CRASHES_AT_ONCE: usize = 4;
/// The same of a participant's batch, whose handler has statements of its own.
const PARTICIPANT: [&str; 4] = ["batch_taken:2", "batch_handled:2", "batch_said:2", "batch_committed:2"];
/// A sweep of deadlines: taken, sagas loaded, saved with their log, outbox, `commit`. No deadline ends a saga or passes the
/// pivot by itself, so that no order is locked.
const SWEEP: [&str; 6] = [
    "deadlines_taken",
    "sweep/saga_loaded",
    "sweep/saga_saved",
    "deadlines_applied",
    "deadlines_said",
    "deadlines_committed",
];
/// A cancel of a confirmed order: saga loaded, its log saved, order locked, saved, second saga started, outbox, `commit`.
const CANCEL: [&str; 6] =
    ["saga_loaded", "saga_saved", "orders_locked", "orders_saved", "saga_started", "cancel_said"];
/// Both commands after their commit: nobody was told.
const UNANSWERED: [&str; 2] = ["cancel_committed", "order_placed"];
/// A head on a retry topic: taken with its key, handled, `commit`, offsets; the same when it fails again; what was held
/// behind it: handled, `commit`.
const HEAD: [&str; 7] = [
    "head_taken:2",
    "head_handled:2",
    "head_committed:2",
    "head_failed:2",
    "head_failed_committed:2",
    "held_handled:2",
    "held_committed:2",
];
/// Retry topics have three partitions, and one member lives.
const HEADS_AT_ONCE: usize = 2;
/// A step of a replay: a letter sent, the step counted, `commit`.
const REPLAY: [&str; 3] = ["replay_sent", "replay_stepped", "replay_committed"];
/// A share of the orders is retried twice, for longer than a hasty saga waits until it sends again: that is held.
const RETRIED: [(&str, &str); 2] =
    [("WAYBILL_FAULTS", "ReserveStock:retry:2:30"), ("WAYBILL_RETRY_DELAYS_MS", "1000,1000,1000")];
/// Letters that a replay resolves, of more than half of the orders.
const BURIED: [(&str, &str); 1] = [("WAYBILL_FAULTS", "CapturePayment:reject:1:60")];
/// More letters than processes die in sending them.
const LETTERS_MIN: i64 = 8;
/// Longest wait for a process to come to its place: it starts, joins its group beside others that die, gets partitions.
const CRASH_TIMEOUT: Duration = Duration::from_secs(120);
/// Orders whose provider answers later than hasty sagas wait: each lets deadlines fire.
const SLOW_AT_ONCE: usize = 8;
/// Pause until the next of them.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_may_die_between_any_two_statements_of_a_batch_of_replies() {
    let system = System::start("e2e_crash_batch").await;
    let shop = Shop::new(&system);
    load::stock_up(&shop).await;
    let load = Load::start(&system, load::seed());
    let crashed = AtomicBool::new(false);
    let crashes = async {
        for places in BATCH.chunks(CRASHES_AT_ONCE) {
            crash_at(&system, Service::Orders, places).await;
        }
        crashed.store(true, Ordering::Relaxed);
    };
    let prices = async {
        for number in 0.. {
            if crashed.load(Ordering::Relaxed) {
                break;
            }
            shop.product(&format!("novelty-{number}"), 100, 0).await;
        }
    };
    tokio::join!(crashes, prices);
    invariants::hold(&system, &load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_may_die_between_any_two_statements_of_a_sweep_of_deadlines() {
    let system = System::start_with("e2e_crash_sweep", &HASTY).await;
    let shop = Shop::new(&system);
    load::stock_up(&shop).await;
    let load = Load::start(&system, load::seed());
    let crashed = AtomicBool::new(false);
    let crashes = async {
        for place in SWEEP {
            crash_at(&system, Service::Orders, &[place]).await;
        }
        crashed.store(true, Ordering::Relaxed);
    };
    let slow = async {
        while !crashed.load(Ordering::Relaxed) {
            join_all((0..SLOW_AT_ONCE).map(|_| shop.order(&[("tea", 1)], "tok_slow_4000"))).await;
            tokio::time::sleep(SLOW_PAUSE).await;
        }
    };
    tokio::join!(crashes, slow);
    let mut accepted = load.stop().await;
    accepted.extend(shop.accepted());
    invariants::hold(&system, &accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_may_die_before_inside_and_after_the_commit_of_a_batch() {
    let system = System::start("e2e_crash_participants").await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    tokio::join!(
        crash_at(&system, Service::Inventory, &PARTICIPANT),
        crash_at(&system, Service::Payments, &PARTICIPANT)
    );
    invariants::hold(&system, &load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_may_die_while_its_commit_is_under_way() {
    let mut system = System::start("e2e_crash_commit").await;
    load::stock_up(&Shop::new(&system)).await;
    for database in system.databases() {
        sqlx::raw_sql(COMMIT_GATE).execute(&database.pool).await.unwrap();
    }
    let load = Load::start(&system, load::seed());
    for service in Service::ALL {
        for ends in [CommitEnds::WithoutClient, CommitEnds::RolledBack] {
            dies_in_its_commit(&mut system, service, ends).await;
        }
    }
    invariants::hold(&system, &load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_may_die_between_any_two_statements_of_a_cancel_and_before_an_answer() {
    let system = System::start("e2e_crash_commands").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 1_000).await;
    let cancels = [&CANCEL[..], &UNANSWERED[..1]].concat();
    let ids = join_all(cancels.iter().map(|_| shop.order(&[("tea", 1)], "tok_approve"))).await;
    join_all(ids.iter().map(|id| system.place_order_saga_becomes(id, "completed"))).await;

    // All is at rest, so each member comes to its place by its own request only.
    let (before_commit, after_commit) = ids.split_at(CANCEL.len());
    join_all(CANCEL.iter().zip(before_commit).map(|(place, id)| {
        dies_unanswered(&system, place, &shop.customer, format!("/api/v1/orders/{id}/cancel"), None)
    }))
    .await;
    for id in before_commit {
        assert_eq!(shop.becomes(id, "CONFIRMED").await["version"], 2, "nothing of the cancel was kept");
    }
    let wish =
        json!({"lines": [{"sku": "tea", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"});
    let (key, cancelled) = ("its-answer-was-lost", format!("/api/v1/orders/{}/cancel", after_commit[0]));
    dies_unanswered(&system, UNANSWERED[0], &shop.customer, cancelled, None).await;
    let placed = Some((key, &wish));
    dies_unanswered(&system, UNANSWERED[1], &shop.customer, "/api/v1/orders".to_owned(), placed).await;

    let answer = load::placed(&shop.client, &system.orders.url, &shop.customer, key, &wish).await;
    shop.becomes(&after_commit[0], "CANCELLED").await;
    for id in &ids {
        let (status, body) = shop.cancel(id).await;
        assert!(status.is_success(), "{status}: {body}");
        shop.becomes(id, "CANCELLED").await;
    }
    let mut accepted = shop.accepted();
    accepted.push(Accepted::new(&shop.customer, key, wish, answer));
    invariants::hold(&system, &accepted).await;
    let orders: i64 =
        sqlx::query_scalar("select count(*) from orders").fetch_one(&system.orders_db.pool).await.unwrap();
    assert_eq!(orders, ids.len() as i64 + 1, "the lost answer's order is there once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_may_die_with_a_head_of_a_key_or_what_is_held_behind_it() {
    let system = System::start_with("e2e_crash_retries", &[&HASTY[..], &RETRIED[..]].concat()).await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    for places in HEAD.chunks(HEADS_AT_ONCE) {
        crash_at(&system, Service::Inventory, places).await;
    }
    let accepted = load.stop().await;
    settled(&system).await;
    invariants::hold(&system, &accepted).await;
    let retried = invariants::count_in_all(&system, "select count(*) from inbox where hop > 0").await;
    assert!(retried > 0, "heads got through");
    assert_eq!(invariants::count_in_all(&system, "select count(*) from parked_keys").await, 0);
    assert_eq!(invariants::count_in_all(&system, "select count(*) from dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_may_die_in_any_statement_of_a_step_of_a_replay() {
    let mut system = System::start_with("e2e_crash_replay", &BURIED).await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    eventually_named("dead letters", CRASH_TIMEOUT, async || {
        let letters = invariants::count_in_all(&system, "select count(*) from dead_letters").await;
        (letters >= LETTERS_MIN).then_some(())
    })
    .await;
    let accepted = load.stop().await;
    settled(&system).await;
    let letters = invariants::count_in_all(&system, "select count(*) from dead_letters").await;
    // Slow, so that much of it is left for those who die, one after the other, with nobody beside them.
    let replay = ["dead-letters", "replay", "--all", "--without-ramp", "--rate", "1", "--detach", "--apply"];
    let (code, said) = system.operator(&[&replay[..], &["--reason", "the fault is mended"]].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(system.payments.terminate().await, Some(0), "{}", system.payments.output());
    for place in REPLAY {
        crash_at(&system, Service::Payments, &[place]).await;
    }
    system.payments.restart();
    eventually_named("the end of the replay", CRASH_TIMEOUT, async || {
        let running = "select count(*) from replays where state <> 'finished'";
        (invariants::count_in_all(&system, running).await == 0).then_some(())
    })
    .await;
    settled(&system).await;
    invariants::hold_beside(&system, &accepted, letters).await;
    let open = "select count(*) from dead_letters where state <> 'resolved'";
    assert_eq!(invariants::count_in_all(&system, open).await, 0);
    assert_eq!(invariants::count_in_all(&system, "select count(*) from parked_keys").await, 0);
}

/// Sends a command to a process of orders that dies at this place of it: no answer.
async fn dies_unanswered(
    system: &System,
    place: &str,
    customer: &str,
    path: String,
    body: Option<(&str, &Value)>,
) {
    let mut member = system.member_that_crashes(Service::Orders, place);
    member.wait_ready(READY_TIMEOUT).await;
    let post = Client::new().post(format!("{}{path}", member.url)).bearer_auth(customer);
    let post = match body {
        Some((key, body)) => post.header("Idempotency-Key", key).json(body),
        None => post,
    };
    let answer = post.send().await;
    assert!(answer.is_err(), "{place}: {answer:?}");
    assert_eq!(
        member.wait_exit(CRASH_TIMEOUT).await,
        None,
        "{place}: a signal ends it:\n{}",
        member.output()
    );
    println!("orders killed at {place}");
}

/// Commits of transactions that have taken messages wait while there is a row in the gate.
const COMMIT_GATE: &str = "create table commit_gate (closed bool);
    create function wait_at_commit() returns trigger language plpgsql as $$ begin
        while exists (select from commit_gate) loop perform pg_sleep(0.02); end loop;
        return null;
    end $$;
    create constraint trigger wait_at_commit after insert on inbox deferrable initially deferred
        for each row execute function wait_at_commit()";

/// What becomes of a COMMIT whose client is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitEnds {
    /// It goes on before the server looks for the client.
    WithoutClient,
    /// The server has looked.
    RolledBack,
}

/// Kills the service while the server is at the COMMIT of one of its batches, and starts it again.
async fn dies_in_its_commit(system: &mut System, service: Service, ends: CommitEnds) {
    let pool = system.database(service).pool.clone();
    sqlx::query("insert into commit_gate values (true)").execute(&pool).await.unwrap();
    let under_way = "select pid from pg_stat_activity
                     where datname = current_database() and query ilike 'commit' and wait_event = 'PgSleep'";
    let backend: i32 = eventually_named("a COMMIT under way", CRASH_TIMEOUT, async || {
        sqlx::query_scalar(under_way).fetch_optional(&pool).await.unwrap()
    })
    .await;
    system.process(service).kill9().await;
    if ends == CommitEnds::RolledBack {
        eventually_named("its backend to end", CRASH_TIMEOUT, async || {
            let lives = "select exists (select from pg_stat_activity where pid = $1)";
            let lives: bool = sqlx::query_scalar(lives).bind(backend).fetch_one(&pool).await.unwrap();
            (!lives).then_some(())
        })
        .await;
    }
    sqlx::query("delete from commit_gate").execute(&pool).await.unwrap();
    System::restart(system.process(service)).await;
    println!("{} killed in its commit ({ends:?})", service.name());
}

/// One more member of the group for each place, all at once; each dies there, and what it held goes to those who live.
async fn crash_at(system: &System, service: Service, places: &[&str]) {
    let crash = async |place: &&str| {
        let mut member = system.member_that_crashes(service, place);
        let ended = member.wait_exit(CRASH_TIMEOUT).await;
        assert_eq!(ended, None, "{place}: a signal ends it:\n{}", member.output());
        println!("{} killed at {place}", service.name());
    };
    join_all(places.iter().map(crash)).await;
}
