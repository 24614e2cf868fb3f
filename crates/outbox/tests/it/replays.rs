//! Replays as operations, on real servers: order per key, nothing twice, stop and resume, the end of a process half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use uuid::Uuid;
use waybill_messaging::consumer::{self, Batch, BatchHandler as _, ConsumerConfig};
use waybill_outbox::dead_letters::{self as kept, DeadLetter};
use waybill_outbox::operate::replays::{self, NewReplay, Replay};
use waybill_outbox::operate::{Filter, PageRequest, audit, dead_letters};
use waybill_outbox::retry::{Poisoned, Policy};
use waybill_runtime::lifecycle::Shutdown;
use waybill_telemetry::metrics;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::{TestDatabase, TestTopics, kafka_bootstrap};

use crate::flaky::{self, Flaky, Member, Relay};
use crate::ledger::{self, GROUP, TOPIC, notes};
use crate::letters::change;
use crate::retry::send_one;

const LIMIT: Duration = Duration::from_secs(300);
/// More than a step of the ramp has; five thousand are replayed end to end.
const LETTERS: i64 = 600;
const KEYS: i64 = 80;
/// Handled when everything is killed: in the middle of the step of two hundred.
const KILLED_AFTER: usize = 250;
/// Letters of one statement.
const PART: usize = 500;

fn driver(pool: &PgPool, topics: &TestTopics, policy: &Policy) -> JoinHandle<()> {
    tokio::spawn(replays::run(pool.clone(), topics.prefix.clone(), policy.clone(), Shutdown::manual()))
}

/// Dead letters of many keys, interleaved; each key's sequences are 1, 2, 3, ... in the order of their offsets.
async fn bury(pool: &PgPool, topics: &TestTopics, letters: i64) {
    let records: Vec<_> = (0..letters)
        .map(|place| {
            let envelope = ledger::envelope(&format!("key-{}", place * 17 % KEYS), place / KEYS + 1);
            let topic = topics.full(TOPIC);
            waybill_messaging::record::Record { topic, ..ledger::record(&envelope, place, b"0") }
        })
        .collect();
    let mut conn = pool.acquire().await.unwrap();
    let letters: Vec<_> = records
        .iter()
        .map(|record| {
            let why = format!("schema {} is too strict", record.offset);
            let class = ["payload", "not_wanted", "database"][usize::try_from(record.offset % 3).unwrap()];
            DeadLetter::new(GROUP, record, class, &why, 1, Utc::now())
        })
        .collect();
    for part in letters.chunks(PART) {
        kept::insert_in_tx(&mut conn, &topics.prefix, part).await.unwrap();
    }
    // Their mirrors are not what this is about.
    sqlx::query("delete from outbox").execute(&mut *conn).await.unwrap();
}

async fn eventually_ended(pool: &PgPool, id: Uuid) -> Replay {
    let ended = async || {
        let replay = replays::show(pool, id).await.unwrap();
        (replay.state != "running").then_some(replay)
    };
    eventually_named("the end of the replay", LIMIT, ended).await
}

async fn eventually_noted(pool: &PgPool, least: usize) {
    let enough = async || (notes(pool).await.len() >= least).then_some(());
    eventually_named("notes", LIMIT, enough).await;
}

fn by_key(notes: Vec<(String, i64)>) -> BTreeMap<String, Vec<i64>> {
    let mut keys: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (key, sequence) in notes {
        keys.entry(key).or_default().push(sequence);
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_letters_of_many_keys_killed_half_way_and_resumed() {
    let policy = flaky::policy(Poisoned::Skip);
    let database = ledger::database("replay_many").await;
    let pool = &database.pool;
    let topics = Arc::new(flaky::topics(1, &policy).await);
    bury(pool, &topics, LETTERS).await;
    let groups =
        dead_letters::failure_groups(pool, &Filter::default(), &PageRequest::default()).await.unwrap();
    assert_eq!(groups.items.iter().map(|group| group.count).sum::<i64>(), LETTERS);
    assert_eq!(groups.items.len(), 3, "{groups:?}");
    let _relay = Relay::start(&database, Arc::clone(&topics));

    let new = NewReplay { rate_per_s: 1_000, ..NewReplay::of(Filter::default()) };
    let replay = replays::create(pool, &new, &change()).await.unwrap();
    assert_eq!(replay.total, LETTERS);
    let member = Member::start(&database, &topics, &Flaky::mended(), &policy);
    let (one, two) = (driver(pool, &topics, &policy), driver(pool, &topics, &policy));
    eventually_noted(pool, KILLED_AFTER).await;
    one.abort();
    two.abort();
    member.abandon();
    let half = replays::show(pool, replay.id).await.unwrap();
    assert!(half.state == "running" && half.remaining > 0, "{half:?}");

    let member = Member::start(&database, &topics, &Flaky::mended(), &policy);
    let driver = driver(pool, &topics, &policy);
    let ended = eventually_ended(pool, replay.id).await;
    assert_eq!((ended.state.as_str(), ended.stop_reason.as_deref()), ("finished", None), "{ended:?}");
    assert_eq!((ended.sent, ended.resolved, ended.remaining), (LETTERS, LETTERS, 0));
    driver.abort();
    member.stop().await;

    let all = notes(pool).await;
    assert_eq!(all.len() as i64, LETTERS, "each once");
    let keys = by_key(all);
    assert_eq!(keys.len() as i64, KEYS);
    for (key, sequences) in keys {
        assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>(), "{key}");
    }
    // Whoever else reads the topic hears nothing of it; ours are on the group's own topic.
    assert_eq!(topics.read_to_end(TOPIC, LIMIT).await.len(), 0);
    let sent = topics.read_to_end(&format!("{TOPIC}.{GROUP}.retry.1"), LIMIT).await;
    let ids: BTreeSet<&str> = sent.iter().filter_map(|record| record.header("ce_id")).collect();
    assert_eq!(ids.len() as i64, LETTERS);
    let id = replay.id.to_string();
    assert!(
        sent.iter().all(|r| r.header("retry_group") == Some(GROUP) && r.header("replay_id") == Some(&id))
    );
}

/// When letters were sent, by the database's clock, and how many each time.
async fn sent(pool: &PgPool, id: Uuid) -> Vec<(DateTime<Utc>, i64)> {
    let sent =
        "select sent_at, count(*) from replay_items where replay_id = $1 group by sent_at order by sent_at";
    sqlx::query_as(sent).bind(id).fetch_all(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_is_sent_than_the_rate_and_the_ramp_allow() {
    const RATE: u32 = 50;
    const FEW: i64 = 60;
    let policy = flaky::policy(Poisoned::Skip);
    for ramp in [false, true] {
        let database = ledger::database("replay_rate").await;
        let pool = &database.pool;
        let topics = Arc::new(flaky::topics(1, &policy).await);
        bury(pool, &topics, FEW).await;
        let _relay = Relay::start(&database, Arc::clone(&topics));
        let member = Member::start(&database, &topics, &Flaky::mended(), &policy);
        // Two that drive it share one allowance.
        let drivers = [driver(pool, &topics, &policy), driver(pool, &topics, &policy)];
        let new = NewReplay { rate_per_s: RATE, ramp, ..NewReplay::of(Filter::default()) };
        let replay = replays::create(pool, &new, &change()).await.unwrap();
        assert_eq!(eventually_ended(pool, replay.id).await.resolved, FEW);
        drivers.iter().for_each(JoinHandle::abort);
        member.stop().await;

        let sent = sent(pool, replay.id).await;
        for pair in sent.windows(2) {
            let [(before, letters), (after, _)] = pair else { unreachable!("windows of two") };
            let earliest = *before + TimeDelta::microseconds(1_000_000 * *letters / i64::from(RATE));
            assert!(*after >= earliest, "{letters} at {before}, the next at {after}: {sent:?}");
        }
        let counts: Vec<i64> = sent.iter().map(|(_, letters)| *letters).collect();
        let allowed: Vec<i64> = if ramp { vec![1, 2, 5, 10, 10, 10, 10, 10, 2] } else { vec![10; 6] };
        assert_eq!(counts, allowed, "the ramp's steps, in batches of a fifth of a second");
        if ramp {
            steps_wait_for_their_verdicts(pool, replay.id, &sent).await;
        }
    }
}

/// The first letters of each step of the ramp were sent when all of the steps before had their verdict.
async fn steps_wait_for_their_verdicts(pool: &PgPool, id: Uuid, sent: &[(DateTime<Utc>, i64)]) {
    for first in [1, 2, 3, 4, 6].map(|place| sent[place].0) {
        let early =
            "select count(*) from replay_items where replay_id = $1 and sent_at < $2 and settled_at > $2";
        let early: i64 = sqlx::query_scalar(early).bind(id).bind(first).fetch_one(pool).await.unwrap();
        assert_eq!(early, 0, "sent at {first}: {sent:?}");
    }
}

/// Six keys, each blocked by a rejected message with two followers.
async fn block(database: &TestDatabase, topics: &TestTopics, policy: &Policy) {
    let group = Flaky::default().processor(&database.pool, &topics.prefix, policy);
    let mut records = Vec::new();
    for sequence in 1..=3 {
        for key in 0..6 {
            let ask: &[u8] = if sequence == 1 { b"reject" } else { b"0" };
            let record =
                ledger::record(&ledger::envelope(&format!("key-{key}"), sequence), records.len() as i64, ask);
            records.push(waybill_messaging::record::Record { topic: topics.full(TOPIC), ..record });
        }
    }
    group.handle(&Batch { records }).await.unwrap();
}

#[tokio::test]
async fn a_replay_stops_at_the_first_failures_and_goes_on_when_it_is_mended() {
    let policy = flaky::policy(Poisoned::Block);
    let database = ledger::database("replay_stops").await;
    let pool = &database.pool;
    let topics = Arc::new(flaky::topics(1, &policy).await);
    block(&database, &topics, &policy).await;
    let _relay = Relay::start(&database, Arc::clone(&topics));
    let driver = driver(pool, &topics, &policy);

    let not_mended = Member::start(&database, &topics, &Flaky::default(), &policy);
    let new = NewReplay { stop_after_failures: 2, ..NewReplay::of(Filter::default()) };
    let replay = replays::create(pool, &new, &change()).await.unwrap();
    let stopped = eventually_ended(pool, replay.id).await;
    assert_eq!(stopped.state, "stopped");
    assert_eq!((stopped.sent, stopped.resolved), (3, 0), "steps of one and two: {stopped:?}");
    assert!(stopped.stop_reason.unwrap().contains("failed again"));
    let settled = async || (replays::show(pool, replay.id).await.unwrap().failed == 3).then_some(());
    eventually_named("the verdict of what was on its way", LIMIT, settled).await;
    let open = dead_letters::list(pool, &Filter::default(), &PageRequest::default()).await.unwrap().items;
    assert_eq!(open.len(), 6, "what failed again is open again");
    assert_eq!(open.iter().filter(|letter| letter.hop == 1 && letter.attempts == 2).count(), 3, "{open:?}");
    not_mended.stop().await;

    let mended = Member::start(&database, &topics, &Flaky::mended(), &policy);
    replays::resume(pool, replay.id, &change()).await.unwrap();
    let ended = eventually_ended(pool, replay.id).await;
    assert_eq!((ended.state.as_str(), ended.resolved), ("finished", 6), "{ended:?}");
    eventually_noted(pool, 18).await;
    driver.abort();
    mended.stop().await;
    for (key, sequences) in by_key(notes(pool).await) {
        assert_eq!(sequences, [1, 2, 3], "{key}");
    }
    let audited = audit::list(pool, &PageRequest::default()).await.unwrap().items;
    let actions: Vec<&str> = audited.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["replays.resume", "replays.create"]);
    let letter = dead_letters::show(pool, open[0].id).await.unwrap();
    assert_eq!((letter.letter.state.as_str(), letter.replays[0].outcome.as_str()), ("resolved", "resolved"));
}

#[tokio::test]
async fn another_group_on_the_topic_sees_nothing_of_a_replay() {
    const OTHER: &str = "replay_onlooker";
    let policy = flaky::policy(Poisoned::Block);
    let topics = Arc::new(flaky::topics(1, &policy).await);
    let (database, others) = (ledger::database("replay_own").await, ledger::database("replay_other").await);
    let shutdown = Shutdown::manual();
    let onlooker = Flaky::mended_of(OTHER).processor(&others.pool, &topics.prefix, &policy);
    let mut config = ConsumerConfig::new(&kafka_bootstrap(), &topics.prefix, OTHER, &[TOPIC]);
    config.close_timeout = LIMIT;
    let onlooker = tokio::spawn(consumer::run(config, onlooker, shutdown.clone()));
    let _relay = Relay::start(&database, Arc::clone(&topics));
    let not_mended = Member::start(&database, &topics, &Flaky::default(), &policy);
    for (key, sequence, ask) in [("a", 1, "reject"), ("a", 2, "0"), ("b", 1, "0")] {
        send_one(&topics, key, sequence, ask).await;
    }
    eventually_noted(&others.pool, 3).await;
    eventually_noted(&database.pool, 1).await;
    let held = async || (ledger::count(&database.pool, "held_messages").await == 1).then_some(());
    eventually_named("what waits behind the letter", LIMIT, held).await;
    not_mended.stop().await;

    let mended = Member::start(&database, &topics, &Flaky::mended(), &policy);
    let driver = driver(&database.pool, &topics, &policy);
    let new = NewReplay::of(Filter::default());
    let replay = replays::create(&database.pool, &new, &change()).await.unwrap();
    assert_eq!(eventually_ended(&database.pool, replay.id).await.resolved, 1);
    eventually_noted(&database.pool, 3).await;
    driver.abort();
    // After anything that the replay could have put on the topic.
    send_one(&topics, "c", 1, "0").await;
    eventually_noted(&others.pool, 4).await;
    eventually_noted(&database.pool, 4).await;
    mended.stop().await;
    shutdown.request();
    onlooker.await.unwrap().unwrap();
    // Its inbox would have dropped a repeat, and counted it.
    let told = |outcome: &str| {
        let metric = format!(r#"inbox_messages_total{{group="{OTHER}",outcome="{outcome}"}} "#);
        metrics::render().lines().find_map(|line| line.strip_prefix(&metric)?.parse::<i64>().ok())
    };
    assert_eq!((told("handled"), told("duplicate")), (Some(4), Some(0)));
    assert_eq!(ledger::count(&others.pool, "inbox").await, 4);
}

#[tokio::test]
async fn what_somebody_else_has_dealt_with_is_skipped_and_what_is_retried_counts_as_failing() {
    let policy = flaky::policy(Poisoned::Block);
    let database = ledger::database("replay_skips").await;
    let pool = &database.pool;
    let topics = Arc::new(flaky::topics(1, &policy).await);
    block(&database, &topics, &policy).await;
    let new = NewReplay { ramp: false, stop_after_failures: 1, ..NewReplay::of(Filter::default()) };
    let replay = replays::create(pool, &new, &change()).await.unwrap();
    let gone = Filter { key: Some("key-3".to_owned()), ..Filter::default() };
    dead_letters::discard(pool, &gone, 1, &change()).await.unwrap();
    // What the discard lets go on is drained, or its key would be busy.
    let drainer = Flaky::mended().processor(pool, &topics.prefix, &policy).drainer();
    let drainer = tokio::spawn(drainer.run(Shutdown::manual()));
    let driver = driver(pool, &topics, &policy);
    let skipped = async || {
        let replay = replays::show(pool, replay.id).await.unwrap();
        (replay.skipped == 1 && replay.sent == 5).then_some(())
    };
    eventually_named("one skipped, five sent", LIMIT, skipped).await;
    // The head of one of them was tried and waits for its second tier.
    sqlx::query("update parked_keys set head_hop = head_hop + 1, tier = 2 where key = 'key-0'")
        .execute(pool)
        .await
        .unwrap();
    let stopped = eventually_ended(pool, replay.id).await;
    assert_eq!((stopped.state.as_str(), stopped.retrying), ("stopped", 1), "{stopped:?}");
    driver.abort();
    drainer.abort();
}
