//! Ordered retry on real servers: order per key through failures, restarts and repeats; bounds; what an operator can do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_messaging::headers;
use waybill_outbox::retry::{BrakePolicy, Poisoned, Policy, operate};
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{Dice, TestTopics};

use crate::flaky::{self, Flaky, Member, Relay};
use crate::ledger::{self, GROUP, PREFIX, TOPIC, batch, count, notes};

const LIMIT: Duration = Duration::from_secs(120);

/// Key, state, held messages.
async fn parked(pool: &PgPool) -> Vec<(String, String, i64)> {
    sqlx::query_as("select convert_from(key, 'UTF8'), state, held_count from parked_keys order by key")
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn letters(pool: &PgPool) -> Vec<(Uuid, String, String, i32, String)> {
    sqlx::query_as(
        "select id, convert_from(key, 'UTF8'), error_class, attempts, state from dead_letters order by \"offset\"",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn parked_row(key: &str, state: &str, held: i64) -> (String, String, i64) {
    (key.to_owned(), state.to_owned(), held)
}

fn sequences(all: &[(String, i64)], key: &str) -> Vec<i64> {
    all.iter().filter(|(k, _)| k == key).map(|(_, sequence)| *sequence).collect()
}

#[tokio::test]
async fn a_retry_parks_its_key_and_sends_the_head_and_others_go_on() {
    let database = ledger::database("retry_parks").await;
    let group = Flaky::default().processor(&database.pool, PREFIX, &flaky::policy(Poisoned::Block));
    let first = batch(&[("a", "0"), ("b", "1"), ("a", "0"), ("b", "0"), ("c", "0")]);
    for _ in 0..2 {
        group.handle(&first).await.unwrap();
    }
    let later = batch(&[("b", "0"), ("c", "0"), ("b", "0")]);
    group.handle(&later).await.unwrap();
    let all = notes(&database.pool).await;
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!((sequences(&all, "a"), sequences(&all, "c")), (vec![1, 3], vec![5, 2]));
    assert_eq!(parked(&database.pool).await, [parked_row("b", "retrying", 3)]);
    let heads: Vec<(String, Vec<u8>, serde_json::Value)> =
        sqlx::query_as("select topic, payload, headers from outbox").fetch_all(&database.pool).await.unwrap();
    assert_eq!(heads.len(), 1);
    let (topic, payload, headers) = &heads[0];
    assert_eq!((topic.as_str(), payload.as_slice()), ("t1.orders.events.ledger.retry.1", &b"1"[..]));
    for (name, value) in [
        ("ce_type", "Noted"),
        ("ce_subject", "b"),
        ("retry_hop", "1"),
        ("retry_tier", "1"),
        ("retry_attempts", "1"),
        ("retry_group", GROUP),
        ("retry_topic", "t1.orders.events"),
        ("retry_partition", "0"),
        ("retry_offset", "1"),
        ("retry_error_class", "not_yet"),
        ("retry_error_message", "as asked"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(headers["ce_id"], ledger::message_ids(&first)[1].to_string(), "the event's id is kept");
}

#[tokio::test]
async fn a_dead_letter_blocks_its_key_until_it_is_discarded() {
    let database = ledger::database("retry_blocks").await;
    let group = Flaky::default().processor(&database.pool, PREFIX, &flaky::policy(Poisoned::Block));
    let asks = [("a", "reject"), ("b", "garbled"), ("a", "0"), ("b", "0"), ("c", "0")];
    group.handle(&batch(&asks)).await.unwrap();
    assert_eq!(notes(&database.pool).await, [("c".into(), 5)]);
    let blocked = [parked_row("a", "blocked", 1), parked_row("b", "blocked", 1)];
    assert_eq!(parked(&database.pool).await, blocked);
    let letters = letters(&database.pool).await;
    let classes: Vec<_> = letters.iter().map(|l| (l.1.as_str(), l.2.as_str(), l.4.as_str())).collect();
    assert_eq!(classes, [("a", "not_wanted", "open"), ("b", "payload", "open")]);

    let shutdown = waybill_runtime::lifecycle::Shutdown::manual();
    let drainer = tokio::spawn(group.drainer().run(shutdown.clone()));
    let mut tx = database.pool.begin().await.unwrap();
    operate::discard_in_tx(&mut tx, letters[0].0).await.unwrap();
    tx.commit().await.unwrap();
    let drained = async || (parked(&database.pool).await == blocked[1..]).then_some(());
    eventually_named("a drained key", LIMIT, drained).await;
    assert_eq!(notes(&database.pool).await, [("c".into(), 5), ("a".into(), 3)]);
    let mut tx = database.pool.begin().await.unwrap();
    let again = operate::discard_in_tx(&mut tx, letters[0].0).await.unwrap_err();
    assert!(again.to_string().contains("discarded, not open"), "{again}");
    shutdown.request();
    drainer.await.unwrap();
}

#[tokio::test]
async fn too_much_held_pauses_and_decides_nothing() {
    let database = ledger::database("retry_bound").await;
    let policy = Policy { held_bytes_max: 1_000, ..flaky::policy(Poisoned::Block) };
    let group = Flaky::default().processor(&database.pool, PREFIX, &policy);
    group.handle(&batch(&[("a", "1"), ("a", "0")])).await.unwrap();
    let many = batch(&[("a", "0"), ("b", "0"), ("a", "0"), ("a", "0"), ("a", "0"), ("a", "0")]);
    let error = group.handle(&many).await.unwrap_err();
    assert!(error.to_string().contains("at most 1000 are held"), "{error}");
    assert_eq!(parked(&database.pool).await, [parked_row("a", "retrying", 1)]);
    assert_eq!(notes(&database.pool).await, []);
    group.handle(&batch(&[("b", "0")])).await.unwrap();
    assert_eq!(notes(&database.pool).await.len(), 1, "a batch that holds nothing goes on");
}

#[tokio::test]
async fn a_storm_of_equal_failures_pauses_instead_of_parking_every_key() {
    let database = ledger::database("retry_storm").await;
    let brake = BrakePolicy { keys: 10, failing_percent: 80 };
    let policy = Policy { brake, ..flaky::policy(Poisoned::Block) };
    let flaky = Flaky::default();
    flaky.is_down.store(true, Ordering::SeqCst);
    let group = flaky.processor(&database.pool, PREFIX, &policy);
    let keys: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    let storm = batch(&keys.iter().map(|key| (key.as_str(), "while down")).collect::<Vec<_>>());
    for _ in 0..2 {
        let error = group.handle(&storm).await.unwrap_err();
        assert!(error.to_string().contains("most of the last 10 keys"), "{error}");
    }
    assert_eq!(parked(&database.pool).await, []);
    assert_eq!((count(&database.pool, "outbox").await, count(&database.pool, "inbox").await), (0, 0));
    flaky.is_down.store(false, Ordering::SeqCst);
    group.handle(&storm).await.unwrap();
    assert_eq!(notes(&database.pool).await.len(), 12);
}

#[tokio::test]
async fn what_a_zombie_parked_while_we_waited_is_seen() {
    let database = ledger::database("retry_zombie").await;
    let flaky = Flaky::default();
    let brake = BrakePolicy { keys: 0, failing_percent: 80 };
    let policy = Policy { brake, ..flaky::policy(Poisoned::Block) };
    let (one, two) =
        (flaky.processor(&database.pool, PREFIX, &policy), flaky.processor(&database.pool, PREFIX, &policy));
    for round in 0..20 {
        let keys: Vec<String> = (0..5).map(|n| format!("{round}-{n}")).collect();
        let asks: Vec<_> = keys.iter().flat_map(|key| [(key.as_str(), "9"), (key.as_str(), "0")]).collect();
        let whole = batch(&asks);
        // The zombie has the heads only; the other member the same heads and their followers.
        let heads = Batch { records: whole.records.iter().step_by(2).cloned().collect() };
        let (first, second) = tokio::join!(one.handle(&heads), two.handle(&whole));
        first.unwrap();
        second.unwrap();
    }
    assert_eq!(notes(&database.pool).await, [], "no follower passed its head");
    let all = parked(&database.pool).await;
    assert_eq!(all.len(), 100);
    assert!(all.iter().all(|(_, state, held)| state == "retrying" && *held == 1), "{all:?}");
}

/// What is sent: per key the sequences, and those that become dead letters.
struct Sent {
    sequences: BTreeMap<String, Vec<i64>>,
    doomed: BTreeSet<(String, i64)>,
}

/// Messages of some keys in random order, failing at random; each key at most one that fails for good.
async fn send(topics: &TestTopics, dice: &mut Dice, sent: &mut Sent, messages: usize, keys: u64) {
    for _ in 0..messages {
        let key = format!("key-{}", dice.roll(keys));
        let so_far = sent.sequences.entry(key.clone()).or_default();
        let sequence = so_far.len() as i64 + 1;
        so_far.push(sequence);
        let is_doomed = sent.doomed.iter().any(|(doomed, _)| *doomed == key);
        let ask = match dice.roll(20) {
            0 if !is_doomed => "99",
            1 if !is_doomed => "reject",
            2 => "1",
            3 => "2",
            4 => "3",
            _ => "0",
        };
        if ["99", "reject"].contains(&ask) {
            sent.doomed.insert((key.clone(), sequence));
        }
        let envelope = ledger::envelope(&key, sequence);
        let headers = headers::encode(&envelope);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        for _ in 0..if dice.roll(10) == 0 { 2 } else { 1 } {
            topics.produce(TOPIC, Some(key.as_bytes()), &headers, Some(ask.as_bytes())).await;
        }
    }
}

/// The seed of a test's dice: `WAYBILL_RETRY_SEED`, or a new one. A test prints it, so that a failure's output has it.
fn seed() -> u64 {
    let given = std::env::var("WAYBILL_RETRY_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| Uuid::now_v7().as_u64_pair().1)
}

/// Runs 400 messages of 12 keys through two members that come and go, one without a word; returns what was sent. The seed
/// decides what is sent, the interleaving is another each time.
async fn turmoil(
    seed: u64,
    database: &waybill_testkit::TestDatabase,
    topics: &Arc<TestTopics>,
    policy: &Policy,
) -> (Sent, Member, Relay) {
    let mut dice = Dice::new(seed);
    let mut sent = Sent { sequences: BTreeMap::new(), doomed: BTreeSet::new() };
    let flaky = Flaky::default();
    let relay = Relay::start(database, Arc::clone(topics));
    let one = Member::start(database, topics, &flaky, policy);
    send(topics, &mut dice, &mut sent, 130, 12).await;
    let two = Member::start(database, topics, &flaky, policy);
    send(topics, &mut dice, &mut sent, 130, 12).await;
    one.abandon();
    let three = Member::start(database, topics, &flaky, policy);
    send(topics, &mut dice, &mut sent, 140, 12).await;
    two.stop().await;
    (sent, three, relay)
}

#[tokio::test]
async fn keys_keep_their_order_through_retries_restarts_and_repeats_when_dead_letters_are_skipped() {
    let policy = flaky::policy(Poisoned::Skip);
    let seed = seed();
    println!("again with WAYBILL_RETRY_SEED={seed}");
    let database = ledger::database("retry_skip").await;
    let topics = Arc::new(flaky::topics(4, &policy).await);
    let (sent, member, _relay) = turmoil(seed, &database, &topics, &policy).await;
    let doomed = sent.doomed.len();
    let complete = async || {
        let done = notes(&database.pool).await.len() + letters(&database.pool).await.len();
        (done >= 400 && parked(&database.pool).await.is_empty()).then_some(())
    };
    eventually_named("every message done or dead, no key parked", LIMIT, complete).await;
    member.stop().await;
    let all = notes(&database.pool).await;
    assert_eq!((all.len(), letters(&database.pool).await.len()), (400 - doomed, doomed));
    for (key, sequence_of) in &sent.sequences {
        let expected: Vec<i64> =
            sequence_of.iter().copied().filter(|s| !sent.doomed.contains(&(key.clone(), *s))).collect();
        assert_eq!(sequences(&all, key), expected, "{key}");
    }
    assert_eq!(count(&database.pool, "held_messages").await, 0);
}

#[tokio::test]
async fn keys_keep_their_order_and_a_dead_letter_blocks_until_it_is_replayed() {
    let policy = flaky::policy(Poisoned::Block);
    let seed = seed();
    println!("again with WAYBILL_RETRY_SEED={seed}");
    let database = ledger::database("retry_block").await;
    let topics = Arc::new(flaky::topics(4, &policy).await);
    let (sent, member, _relay) = turmoil(seed, &database, &topics, &policy).await;
    let blocked = async || {
        let keys = parked(&database.pool).await;
        let noted = notes(&database.pool).await.len() as i64;
        let held: i64 = keys.iter().map(|(_, _, held)| held).sum();
        let settled = keys.iter().all(|(_, state, _)| state == "blocked");
        (settled && noted + held + keys.len() as i64 == 400).then_some(keys)
    };
    let keys = eventually_named("every key drained or blocked", LIMIT, blocked).await;
    let doomed: Vec<&String> = sent.doomed.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.iter().map(|(key, ..)| key).collect::<Vec<_>>(), doomed);
    let all = notes(&database.pool).await;
    for (key, sequence_of) in &sent.sequences {
        let end = sent.doomed.iter().find(|(k, _)| k == key).map_or(i64::MAX, |(_, sequence)| *sequence);
        let expected: Vec<i64> = sequence_of.iter().copied().filter(|s| *s < end).collect();
        assert_eq!(sequences(&all, key), expected, "{key}");
    }
    let letters = letters(&database.pool).await;
    for (_, key, class, attempts, state) in &letters {
        assert!(class == "not_wanted" || *attempts == 4, "{key}: {class} after {attempts} attempts");
        assert_eq!(state, "open");
    }
    member.stop().await;

    // Mended: another handler, without the fault, and every letter goes round again.
    let mended = Member::start(&database, &topics, &Flaky::mended(), &policy);
    for (id, ..) in &letters {
        let mut tx = database.pool.begin().await.unwrap();
        operate::replay_in_tx(&mut tx, &topics.prefix, &policy, *id).await.unwrap();
        tx.commit().await.unwrap();
    }
    let complete = async || {
        (notes(&database.pool).await.len() >= 400 && parked(&database.pool).await.is_empty()).then_some(())
    };
    eventually_named("every message done", LIMIT, complete).await;
    mended.stop().await;
    let all = notes(&database.pool).await;
    for (key, sequence_of) in &sent.sequences {
        assert_eq!(&sequences(&all, key), sequence_of, "{key}");
    }
    let states: BTreeSet<String> =
        crate::retry::letters(&database.pool).await.into_iter().map(|l| l.4).collect();
    assert_eq!(states, BTreeSet::from(["resolved".to_owned()]));
}

/// One message, asking for something.
pub(crate) async fn send_one(topics: &TestTopics, key: &str, sequence: i64, ask: &str) {
    let envelope = ledger::envelope(key, sequence);
    let headers = headers::encode(&envelope);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    topics.produce(TOPIC, Some(key.as_bytes()), &headers, Some(ask.as_bytes())).await;
}

#[tokio::test]
async fn a_head_that_is_not_due_holds_up_its_own_key_only() {
    let policy = Policy::with_delays(&[Duration::from_secs(3600)]);
    let database = ledger::database("retry_not_due").await;
    let topics = Arc::new(flaky::topics(1, &policy).await);
    let _relay = Relay::start(&database, Arc::clone(&topics));
    let member = Member::start(&database, &topics, &Flaky::default(), &policy);
    for sequence in 1..=20 {
        send_one(&topics, "slow", sequence, "1").await;
        send_one(&topics, "quick", sequence, "0").await;
    }
    let done = async || (notes(&database.pool).await.len() == 20).then_some(());
    eventually_named("the other key", LIMIT, done).await;
    let held = async || (parked(&database.pool).await == [parked_row("slow", "retrying", 19)]).then_some(());
    eventually_named("the held messages", LIMIT, held).await;
    member.stop().await;
    assert_eq!(sequences(&notes(&database.pool).await, "quick"), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn at_the_bound_of_held_bytes_the_consumer_pauses_until_keys_are_drained() {
    let policy = Policy { held_bytes_max: 600, ..flaky::policy(Poisoned::Block) };
    let database = ledger::database("retry_pause").await;
    let topics = Arc::new(flaky::topics(1, &policy).await);
    for sequence in 1..=60 {
        // A batch of 20 has two followers of the head at most, which fit; three do not.
        let key = format!("key-{}", sequence % 12);
        send_one(&topics, &key, (sequence - 1) / 12 + 1, if sequence == 1 { "3" } else { "0" }).await;
    }
    let _relay = Relay::start(&database, Arc::clone(&topics));
    let member = Member::start(&database, &topics, &Flaky::default(), &policy);
    let done = async || (notes(&database.pool).await.len() == 60).then_some(());
    eventually_named("every message", LIMIT, done).await;
    let unparked = async || parked(&database.pool).await.is_empty().then_some(());
    eventually_named("no parked key", LIMIT, unparked).await;
    member.stop().await;
    let all = notes(&database.pool).await;
    for key in 0..12 {
        assert_eq!(sequences(&all, &format!("key-{key}")), [1, 2, 3, 4, 5], "key-{key}");
    }
}
