//! The torture harness: concurrent writers of every kind, strangers who stay open, and the audit from the topics. The
//! usual recipes run over the same rows and must be seen to fail: that is how we know that the harness sees.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::{PgPool, Row as _};
use waybill_testkit::{Dice, eventually};

use crate::audit::{Audit, audit, audit_to_end, examine};
use crate::brokers::away_for;
use crate::setup::{Outbox, SOON, TOPIC, metric};

mod lag;
mod mix;
mod recipes;

use lag::{Commits, time_appends};
use mix::{Strangers, writers_noted};
pub(crate) use mix::{bulk, writers};
use recipes::{QUEUE, Recipe, Running};

const WRITERS: u64 = 12;
const TRANSACTIONS: u64 = 60;
const BULK_ROWS: i32 = 50_000;
/// Less is what other work on the machine makes of it.
const LATE_MIN: Duration = Duration::from_secs(1);
/// The short form's seed; the long form is told one.
const SEED: u64 = 4;
/// The recipes have shown their faults after one of these, or never.
const ROUNDS_MAX: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_committed_row_comes_in_order_and_nobody_waits_for_a_stranger() {
    let outbox = Outbox::new("torture").await;
    time_appends(&outbox.topics, TOPIC).await;
    let mut relay = outbox.relay().spawn();
    relay.wait_ready(SOON).await;
    let alone = measured(&outbox, SEED).await;
    let strangers = Strangers::begin(&outbox).await;
    let since = Instant::now();
    // The others of the machine can make one of them late, a stranger all of them.
    let mut besides = Vec::new();
    for _ in 0..3 {
        besides.push(measured(&outbox, SEED).await);
    }
    let writers = writers(&outbox, SEED, WRITERS, TRANSACTIONS).await;
    bulk(&outbox, BULK_ROWS).await;
    writers.join_all().await;
    // While the strangers are open, everything of the others is there.
    let meanwhile = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    let open_for = since.elapsed();
    strangers.commit(&outbox).await;
    let after = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    println!("beside the open strangers: {meanwhile:?}; after: {after:?}");
    assert!(meanwhile.records > 50_000 + 12 * 60, "{meanwhile:?}");
    assert_eq!((after.records, after.repeats), (meanwhile.records + 3, 0), "no crash, no repeat");

    let alone_again = measured(&outbox, SEED).await;
    let mut beside = Vec::new();
    for commits in besides {
        beside.push(commits.lags(&outbox.topics, TOPIC).await);
    }
    let beside = beside.into_iter().min_by_key(|lags| lags.percentile(99)).unwrap();
    println!("lag beside strangers who stay open for {open_for:.1?}, the best of three: {beside}");
    let mut late_alone = Duration::ZERO;
    for (when, commits) in [("before", alone), ("after", alone_again)] {
        let lags = commits.lags(&outbox.topics, TOPIC).await;
        println!("lag without them, {when}: {lags}");
        late_alone = late_alone.max(lags.percentile(99));
    }
    assert!(beside.percentile(99) < open_for / 2, "nobody waits for a stranger: {beside}");
    let late_max = (3 * late_alone).max(LATE_MIN);
    assert!(beside.percentile(99) <= late_max, "strangers make it later than {late_max:?}: {beside}");
    audit_to_end(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!(relay.terminate().await, Some(0));
}

/// Writers whose messages' lag is looked at.
async fn measured(outbox: &Outbox, seed: u64) -> Commits {
    let commits = Commits::default();
    writers_noted(outbox, seed, WRITERS, TRANSACTIONS, &commits).await.join_all().await;
    commits
}

/// Ids of the committed rows by their messages.
async fn rows(pool: &PgPool) -> BTreeMap<String, i64> {
    let rows = sqlx::query("select headers ->> 'ce_id' as message, id from outbox").fetch_all(pool).await;
    rows.unwrap().iter().map(|row| (row.get("message"), row.get("id"))).collect()
}

/// What the audit says of what a recipe published. Rows behind its newest may come yet; those before it that are not there it
/// has passed over for good.
fn audited(running: &Running, rows: &BTreeMap<String, i64>) -> Audit {
    let (ids, published): (Vec<i64>, Vec<_>) = running.journal().into_iter().unzip();
    let newest = ids.into_iter().max().unwrap_or_default();
    let committed = rows.iter().filter(|(_, id)| **id <= newest).map(|(message, _)| message.clone());
    examine(&published, &committed.collect())
}

fn is_seen_to_fail(running: &Running, rows: &BTreeMap<String, i64>) -> bool {
    let audit = audited(running, rows);
    match running.recipe {
        Recipe::Cursor | Recipe::GateById => audit.lost > 0,
        Recipe::GateByXid | Recipe::SkipLocked => audit.inverted > 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usual_recipes_are_seen_to_fail_on_the_same_rows() {
    let outbox = Outbox::new("recipes").await;
    let pool = &outbox.database.pool;
    sqlx::raw_sql(QUEUE).execute(pool).await.unwrap();
    let mut relay = outbox.relay().spawn();
    relay.wait_ready(SOON).await;
    let recipes = Recipe::ALL.map(|recipe| Running::start(recipe, pool));
    for round in 0..ROUNDS_MAX {
        writers(&outbox, SEED + round, WRITERS, TRANSACTIONS / 2).await.join_all().await;
        for recipe in &recipes {
            recipe.stands_still().await;
        }
        let rows = rows(pool).await;
        if recipes.iter().all(|recipe| is_seen_to_fail(recipe, &rows)) {
            break;
        }
    }
    let before = rows(pool).await;
    // Beside open strangers the gates let nothing out, here or from wherever in the server; the relay does.
    let strangers = Strangers::begin(&outbox).await;
    writers(&outbox, SEED + ROUNDS_MAX, WRITERS, 5).await.join_all().await;
    let ours = audit(&outbox.topics, TOPIC, pool).await;
    let newest = before.values().copied().max().unwrap();
    for recipe in &recipes {
        recipe.stands_still().await;
        let fresh = recipe.journal().iter().filter(|(id, _)| *id > newest).count();
        let Audit { lost, inverted, .. } = audited(recipe, &before);
        println!("{:?}: {lost} lost, {inverted} inverted, {fresh} beside strangers", recipe.recipe);
        let gated = matches!(recipe.recipe, Recipe::GateByXid | Recipe::GateById);
        assert_eq!(gated, fresh == 0, "only the gates wait for strangers: {:?}", recipe.recipe);
        assert!(is_seen_to_fail(recipe, &before), "{:?} must be seen to fail", recipe.recipe);
    }
    println!("the relay: {ours:?}");
    assert!(ours.records > before.len() && ours.repeats == 0, "{ours:?}");
    strangers.commit(&outbox).await;
    audit(&outbox.topics, TOPIC, pool).await;
    for recipe in recipes {
        recipe.end().await;
    }
    assert_eq!(relay.terminate().await, Some(0));
}

/// How long a broker stays away in the long form.
const KAFKA_AWAY: Duration = Duration::from_secs(180);

/// A number that `cargo xtask chaos` hands over.
fn told(name: &str) -> u64 {
    let value = std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: `cargo xtask chaos relay` sets it"));
    value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}, and no number"))
}

/// Totals of the long form.
#[derive(Debug, Default)]
struct Totals {
    records: usize,
    repeats: usize,
    kills: u64,
    freezes: u64,
}

/// Two relays of other sizes each time, killed and frozen in the middle.
async fn round(number: u64, seed: u64, totals: &mut Totals) {
    let mut dice = Dice::new(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)));
    let outbox = Outbox::new("chaos").await;
    let mut some = || {
        let sizes = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", "1000");
        sizes
            .env("OUTBOX_RELAY_PIECE_ROWS_MAX", (20 + dice.roll(2_000)).to_string())
            .env("OUTBOX_RELAY_IN_FLIGHT_ROWS_MAX", (20 + dice.roll(20_000)).to_string())
            .env("OUTBOX_RELAY_POSITION_INTERVAL_MS", (10 + dice.roll(500)).to_string())
            .spawn()
    };
    let (mut relay, mut second) = (some(), some());
    relay.wait_ready(SOON).await;
    second.wait_ready(SOON).await;
    let strangers = Strangers::begin(&outbox).await;
    let writers = writers(&outbox, dice.roll(u64::MAX >> 33), WRITERS, 2 * TRANSACTIONS).await;
    if dice.roll(2) == 0 {
        bulk(&outbox, BULK_ROWS).await;
    }
    for _ in 0..dice.roll(5) {
        tokio::time::sleep(Duration::from_millis(dice.roll(700))).await;
        let one = if dice.roll(2) == 0 { &mut relay } else { &mut second };
        if dice.roll(3) > 0 {
            one.kill9().await;
            one.restart();
            totals.kills += 1;
        } else {
            one.sigstop().await;
            // Three leases: the other has taken over, under load.
            tokio::time::sleep(Duration::from_secs(3)).await;
            one.sigcont().await;
            totals.freezes += 1;
        }
    }
    writers.join_all().await;
    let meanwhile = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    strangers.commit(&outbox).await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    totals.records += audit.records;
    totals.repeats += audit.repeats;
    println!("round {number}: {} beside strangers; {audit:?}; so far {totals:?}", meanwhile.records);
    eventually(SOON, async || {
        let held = metric(&relay, "outbox_relay_lease_held").await
            + metric(&second, "outbox_relay_lease_held").await;
        (held == 1.0).then_some(())
    })
    .await;
    audit_to_end(&outbox.topics, TOPIC, &outbox.database.pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the long form: cargo xtask chaos relay --minutes M --seed N"]
async fn long_form() {
    let (minutes, seed) = (told("WAYBILL_CHAOS_MINUTES"), told("WAYBILL_CHAOS_SEED"));
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    println!("seed {seed}, {minutes} minutes");
    let rounds = async {
        let (mut totals, mut rounds) = (Totals::default(), 0);
        while rounds == 0 || Instant::now() < until {
            round(rounds, seed, &mut totals).await;
            rounds += 1;
        }
        (totals, rounds)
    };
    // Beside them, on a broker of its own.
    let away = async {
        let audit = away_for(KAFKA_AWAY).await;
        println!("Kafka was away for {KAFKA_AWAY:?}: {audit:?}");
    };
    let ((totals, rounds), ()) = tokio::join!(rounds, away);
    println!(
        "seed {seed}: {rounds} rounds, {totals:?}: nothing lost, invented or turned round, nobody held up"
    );
}
