//! Batches that fail and are redone in parts: effects once, order per key, dead letters alone, few transactions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_outbox::retry::{Poisoned, Policy};
use waybill_testkit::{Dice, TestDatabase};

use crate::ledger::{self, Ledger, count, notes};

/// Messages of a batch here: 4 = log2.
const COUNT: usize = 16;
const LOG2: usize = 4;
/// How long one transaction searches; see `search.rs`.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(1);
/// What makes a transaction fail without telling whose fault it is. (A panic does too; each writes a backtrace.)
const FAULTS: [&str; 5] = ["constraint", "fault", "deferred", "swallow", "too large"];

/// A key and what its message asks.
type Wish = (String, &'static str);

/// These messages as a batch, from this offset on; each key's sequences count from 1.
fn batch_from(offset: usize, wishes: &[Wish]) -> Batch {
    let mut sequences: BTreeMap<&str, i64> = BTreeMap::new();
    let records = wishes.iter().enumerate().map(|(place, (key, ask))| {
        let sequence = sequences.entry(key).or_default();
        *sequence += 1;
        let envelope = ledger::envelope(key, *sequence);
        ledger::record(&envelope, i64::try_from(offset + place).unwrap(), ask.as_bytes())
    });
    Batch { records: records.collect() }
}

/// Transactions that were committed with messages in them: each leaves its number on its inbox rows.
async fn commits(database: &TestDatabase) -> usize {
    let commits: i64 = sqlx::query_scalar("select count(distinct xmin::text) from inbox")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    usize::try_from(commits).unwrap()
}

fn calls(ledger: &Ledger) -> usize {
    std::mem::take(&mut *ledger.calls.lock().unwrap()).len()
}

/// Offsets of all dead letters, in order.
async fn letters(database: &TestDatabase) -> Vec<i64> {
    sqlx::query_scalar("select \"offset\" from dead_letters order by \"offset\"")
        .fetch_all(&database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn one_fault_at_every_place_costs_one_commit_and_the_next_batch_is_whole() {
    let database = ledger::database("halves_one").await;
    let (group, ledger) = ledger::group_with(&database, ledger::PREFIX, Policy::default()).await;
    let mut noted = Vec::new();
    let mut buried = Vec::new();
    for place in 0..COUNT {
        let offset = place * COUNT;
        // Each kind is found where it is: what would show at the commit only, too.
        let ask = |n| if n == place { FAULTS[place % FAULTS.len()] } else { "note" };
        let wishes: Vec<Wish> = (0..COUNT).map(|n| (format!("{place}-{n}"), ask(n))).collect();
        let batch = batch_from(offset, &wishes);
        let before = commits(&database).await;
        let started = Instant::now();
        group.handle(&batch).await.unwrap();
        let in_time = started.elapsed() < SEARCH_TIME_MAX;
        let (tried, committed) = (calls(&ledger), commits(&database).await - before);
        // On a machine that is too slow for one transaction its parts are tried again, and committed one by one.
        let (tries, commits) = if in_time { (LOG2 + 4, 1) } else { (2 * LOG2 + 8, LOG2 + 1) };
        assert!(tried <= tries && committed <= commits, "at {place}: {tried} calls, {committed} commits");
        // No key comes twice, so everything was noted in the order of its arrival.
        noted.extend((0..COUNT).filter(|n| *n != place).map(|n| (format!("{place}-{n}"), 1)));
        buried.push(i64::try_from(offset + place).unwrap());
        assert_eq!(notes(&database.pool).await, noted, "at {place}");
        assert_eq!(letters(&database).await, buried, "at {place}");

        group.handle(&batch).await.unwrap();
        assert_eq!(calls(&ledger), 0, "at {place}: all of it is known");
    }
    let good: Vec<Wish> = (0..COUNT).map(|n| (format!("good-{n}"), "note")).collect();
    let before = commits(&database).await;
    group.handle(&batch_from(COUNT * COUNT, &good)).await.unwrap();
    assert_eq!((calls(&ledger), commits(&database).await - before), (1, 1), "a batch after it is one again");
    let replies = i64::try_from(noted.len() + good.len()).unwrap();
    assert_eq!(count(&database.pool, "outbox").await, replies + buried.len() as i64, "replies and mirrors");
}

/// What messages taken one after the other would come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Sequences of each key, in order.
    noted: BTreeMap<String, Vec<i64>>,
    held: BTreeMap<String, Vec<i64>>,
    /// Offsets.
    letters: Vec<i64>,
}

impl Outcome {
    fn expected(poisoned: Poisoned, offset: usize, wishes: &[Wish]) -> Self {
        let mut outcome = Self::default();
        let mut seen: BTreeMap<&str, (i64, bool)> = BTreeMap::new();
        for (place, (key, ask)) in wishes.iter().enumerate() {
            let (sequence, blocked) = seen.entry(key).or_default();
            *sequence += 1;
            if *blocked {
                outcome.held.entry(key.clone()).or_default().push(*sequence);
            } else if *ask == "note" {
                outcome.noted.entry(key.clone()).or_default().push(*sequence);
            } else {
                *blocked = poisoned == Poisoned::Block;
                outcome.letters.push(i64::try_from(offset + place).unwrap());
            }
        }
        outcome
    }

    /// What became of these messages.
    async fn of(database: &TestDatabase, offset: usize, wishes: &[Wish]) -> Self {
        let mut outcome = Self { letters: letters(database).await, ..Self::default() };
        let (first, last) = (i64::try_from(offset).unwrap(), i64::try_from(offset + wishes.len()).unwrap());
        outcome.letters.retain(|letter| (first..last).contains(letter));
        let is_ours = |key: &String| wishes.iter().any(|(ours, _)| ours == key);
        for (key, sequence) in notes(&database.pool).await.into_iter().filter(|(key, _)| is_ours(key)) {
            outcome.noted.entry(key).or_default().push(sequence);
        }
        let held: Vec<(String, i64)> = sqlx::query_as(
            "select convert_from(key, 'UTF8'),
                    (select (h ->> 'value')::bigint from json_array_elements(headers) h where h ->> 'name' = 'ce_sequence')
             from held_messages order by id",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        for (key, sequence) in held.into_iter().filter(|(key, _)| is_ours(key)) {
            outcome.held.entry(key).or_default().push(sequence);
        }
        outcome
    }
}

/// The default policy, with this for dead letters.
fn policy(poisoned: Poisoned) -> Policy {
    Policy { poisoned, ..Policy::default() }
}

/// Handles these twice, with keys of their own: as if one message after the other, and the second time nothing.
async fn assert_as_one_by_one(database: &TestDatabase, poisoned: Poisoned, offset: usize, wishes: &[Wish]) {
    let (group, _) = ledger::group_with(database, ledger::PREFIX, policy(poisoned)).await;
    let batch = batch_from(offset, wishes);
    let (before, expected) =
        (count(&database.pool, "inbox").await, Outcome::expected(poisoned, offset, wishes));
    for time in 1..=2 {
        group.handle(&batch).await.unwrap();
        let outcome = Outcome::of(database, offset, wishes).await;
        assert_eq!(outcome, expected, "{poisoned:?}, time {time}: {wishes:?}");
    }
    assert_eq!(count(&database.pool, "inbox").await - before, wishes.len() as i64, "{wishes:?}");
}

#[tokio::test]
async fn followers_of_a_fault_are_held_and_skipping_goes_on_with_them() {
    let database = ledger::database("halves_followers").await;
    let asks =
        [("a", "note"), ("b", "constraint"), ("b", "note"), ("a", "note"), ("b", "fault"), ("c", "note")];
    // The fault of `c` is found after others were committed; what follows it lies in another half.
    let more = [("c", "panic"), ("a", "note"), ("c", "note"), ("b", "note")];
    for (offset, poisoned) in [(0, Poisoned::Block), (100, Poisoned::Skip)] {
        let wish = |(key, ask): &(&str, &'static str)| (format!("{key}{offset}"), *ask);
        let wishes: Vec<Wish> = asks.iter().chain(&more).map(wish).collect();
        assert_as_one_by_one(&database, poisoned, offset, &wishes).await;
    }
}

#[tokio::test]
async fn any_faults_and_rejects_come_out_as_one_by_one() {
    let database = ledger::database("halves_any").await;
    for seed in 1..=20 {
        let mut dice = Dice::new(seed);
        // From one in four to all of them.
        let fails_in_four = 1 + dice.place(4);
        let wishes: Vec<Wish> = (0..24)
            .map(|_| {
                let key = format!("{seed}-{}", dice.place(6));
                let ask = match dice.place(4) < fails_in_four {
                    true => FAULTS.into_iter().chain(["reject"]).nth(dice.place(FAULTS.len() + 1)).unwrap(),
                    false => "note",
                };
                (key, ask)
            })
            .collect();
        let poisoned = if seed % 2 == 0 { Poisoned::Block } else { Poisoned::Skip };
        let offset = usize::try_from(seed).unwrap() * wishes.len();
        assert_as_one_by_one(&database, poisoned, offset, &wishes).await;
    }
}

/// Handles so many messages that are all at fault; returns calls, commits, and whether it was quick.
async fn all_at_fault(database: &TestDatabase, count: usize) -> (usize, usize, bool) {
    let (group, ledger) = ledger::group_with(database, ledger::PREFIX, policy(Poisoned::Block)).await;
    let wishes: Vec<Wish> = (0..count).map(|n| (format!("key-{n}"), "constraint")).collect();
    let started = Instant::now();
    group.handle(&batch_from(0, &wishes)).await.unwrap();
    let in_time = started.elapsed() < SEARCH_TIME_MAX;
    assert_eq!(letters(database).await, (0..count as i64).collect::<Vec<_>>());
    (calls(&ledger), commits(database).await, in_time)
}

/// How often a batch may be tried, whatever fails in it.
fn tries_max(count: usize) -> usize {
    let log2 = count.next_power_of_two().ilog2() as usize;
    2 * count + (log2 + 1) * (log2 + 2) / 2
}

#[tokio::test]
async fn when_all_are_at_fault_it_costs_about_two_tries_each() {
    let database = ledger::database("halves_all").await;
    let (tried, committed, in_time) = all_at_fault(&database, COUNT).await;
    assert!(tried <= tries_max(COUNT) * if in_time { 1 } else { 2 }, "{tried} calls");
    assert!(committed == 1 || !in_time, "{committed} commits");
}

#[tokio::test]
async fn too_many_faults_for_one_transaction_are_settled_in_several() {
    let database = ledger::database("halves_many").await;
    let (tried, committed, _) = all_at_fault(&database, 4 * COUNT).await;
    // The parts of the transaction that was given up come on top, and what they found is not tried again.
    assert!(tried <= 40 + tries_max(4 * COUNT), "{tried} calls");
    assert!(committed > 1, "a transaction of {tried} parts");
}

#[tokio::test]
async fn infrastructure_that_fails_in_a_part_pauses_and_decides_nothing() {
    let database = ledger::database("halves_cut").await;
    let (group, _) = ledger::group_with(&database, ledger::PREFIX, policy(Poisoned::Block)).await;
    let mut wishes: Vec<Wish> = (0..COUNT).map(|n| (format!("key-{n}"), "note")).collect();
    wishes[5].1 = "constraint";
    // Reached when the fault before it is known: with the rest of the batch.
    wishes[11].1 = "end backend once";
    let batch = batch_from(0, &wishes);
    group.handle(&batch).await.unwrap_err();
    for table in ["inbox", "outbox", "dead_letters"] {
        assert_eq!(count(&database.pool, table).await, 0, "{table}: nothing is settled before all of it is");
    }
    assert_eq!(notes(&database.pool).await, []);
    group.handle(&batch).await.unwrap();
    let noted: Vec<_> = (0..COUNT).filter(|n| *n != 5).map(|n| (format!("key-{n}"), 1)).collect();
    assert_eq!(notes(&database.pool).await, noted);
    assert_eq!(letters(&database).await, [5]);
}

#[tokio::test]
async fn parts_that_are_in_anothers_way_are_committed_one_by_one() {
    let database = ledger::database("halves_conflict").await;
    let (group, _) = ledger::group_with(&database, ledger::PREFIX, policy(Poisoned::Block)).await;
    let mut wishes: Vec<Wish> = (0..COUNT).map(|n| (format!("key-{n}"), "note")).collect();
    wishes[5].1 = "constraint";
    wishes[14].1 = "row";
    let batch = batch_from(0, &wishes);
    let mut other = database.pool.begin().await.unwrap();
    sqlx::query("update rows set n = n + 1").execute(&mut *other).await.unwrap();
    let error = group.handle(&batch).await.unwrap_err();
    assert!(error.to_string().contains("lock timeout"), "{error}");
    let noted =
        |to: usize| -> Vec<_> { (0..to).filter(|n| *n != 5).map(|n| (format!("key-{n}"), 1)).collect() };
    assert_eq!(notes(&database.pool).await, noted(14), "what is not in its way is settled");
    assert_eq!(letters(&database).await, [5]);
    other.rollback().await.unwrap();
    group.handle(&batch).await.unwrap();
    assert_eq!(notes(&database.pool).await, noted(COUNT));
    assert_eq!(letters(&database).await, [5]);
}

#[tokio::test]
async fn a_batch_dropped_anywhere_between_its_parts_is_made_once_by_the_next_try() {
    let database = ledger::database("halves_dropped").await;
    let (group, ledger) = ledger::group_with(&database, ledger::PREFIX, policy(Poisoned::Block)).await;
    for dropped_at in 1..=LOG2 + 3 {
        let key = |n| format!("{dropped_at}-{n}");
        let ask = |n| if n % 7 == 4 { "constraint" } else { "note" };
        let wishes: Vec<Wish> = (0..COUNT).map(|n| (key(n), ask(n))).collect();
        let batch = batch_from(dropped_at * COUNT, &wishes);
        let begun = async {
            while ledger.calls.lock().unwrap().len() < dropped_at {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = begun => {}
            handled = group.handle(&batch) => handled.unwrap(),
        }
        // The connection of the one that was dropped is closed, and its locks are held until its server process has seen
        // it: on a busy machine longer than anybody here waits for a lock.
        if group.handle(&batch).await.is_err() {
            group.handle(&batch).await.unwrap();
        }
        calls(&ledger);
        let noted: Vec<_> = notes(&database.pool).await.split_off((dropped_at - 1) * (COUNT - 2));
        let expected: Vec<_> = (0..COUNT).filter(|n| ask(*n) == "note").map(|n| (key(n), 1)).collect();
        assert_eq!(noted, expected, "dropped at call {dropped_at}");
    }
    assert_eq!(letters(&database).await.len(), 2 * (LOG2 + 3));
}
