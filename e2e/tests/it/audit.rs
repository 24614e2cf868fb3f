//! The audit of the topics against the outboxes: nothing lost, nothing invented, each key in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use waybill_testkit::{OwnedRecord, TestDatabase};

use crate::system::System;

/// Longest wait until the relay has published what the outboxes hold.
const PUBLISHED_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two readings of a topic that is not complete.
const READ_PAUSE: Duration = Duration::from_millis(300);
/// What a test puts into a topic itself has this source, or none, and is left out.
pub(crate) const FOREIGN_SOURCE: &str = "/elsewhere";

/// Reads every topic of a system at rest and compares it with the outbox rows: the same ids; after dropping equal ids each key's
/// `ce_sequence` is 1..n without inversion. `orders` must each have their event of placement.
pub(crate) async fn every_topic(system: &System, orders: &[String]) {
    let mut rows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for database in system.databases() {
        for (topic, ids) in outbox_ids(database).await {
            rows.entry(topic).or_default().extend(ids);
        }
    }
    assert!(rows.len() >= 5, "the main topics were all written to: {:?}", rows.keys());
    for (topic, ids) in &rows {
        let name = topic.strip_prefix(&system.topics.prefix).expect("our prefix");
        // A mirror of a dead letter has the ids and sequences of the message that died: only the number is ours.
        if name.ends_with(".dlq") {
            let records = complete(system, name, |records| records.len() >= ids.len()).await;
            let own: BTreeSet<&str> = records.iter().filter_map(|record| record.header("dlq_id")).collect();
            assert!(
                own.iter().copied().eq(ids.iter().map(String::as_str)),
                "{topic}: each dead letter is mirrored"
            );
            continue;
        }
        let seen_all = |records: &[OwnedRecord]| {
            let seen: BTreeSet<&str> = records.iter().filter_map(|record| record.header("ce_id")).collect();
            ids.iter().all(|id| seen.contains(id.as_str()))
        };
        let records = complete(system, name, seen_all).await;
        for record in &records {
            let id = record.header("ce_id").expect("every record has an id");
            assert!(ids.contains(id), "{topic}: {id} is in no outbox");
        }
        sequences(topic, &records);
        if name == "orders.events" {
            let placed: BTreeSet<&str> = records
                .iter()
                .filter(|r| r.header("ce_type") == Some("OrderPlaced"))
                .map(OwnedRecord::key_text)
                .collect();
            assert!(orders.iter().all(|id| placed.contains(id.as_str())), "every accepted order is told");
        }
    }
}

/// The topic to its end, once it has what `is_complete` asks for; without what a test put there itself.
async fn complete(
    system: &System,
    name: &str,
    is_complete: impl Fn(&[OwnedRecord]) -> bool,
) -> Vec<OwnedRecord> {
    let started = Instant::now();
    loop {
        let mut records = system.topics.read_to_end(name, PUBLISHED_TIMEOUT).await;
        if !name.ends_with(".dlq") {
            records
                .retain(|record| record.header("ce_source").is_some_and(|source| source != FOREIGN_SOURCE));
        }
        if is_complete(&records) {
            return records;
        }
        assert!(started.elapsed() < PUBLISHED_TIMEOUT, "{name} lacks rows of the outbox");
        tokio::time::sleep(READ_PAUSE).await;
    }
}

fn sequences(topic: &str, records: &[OwnedRecord]) {
    let mut seen = BTreeSet::new();
    let mut last: HashMap<&str, i64> = HashMap::new();
    for record in records.iter().filter(|record| seen.insert(record.header("ce_id"))) {
        let sequence: i64 = record.header("ce_sequence").expect("a sequence").parse().unwrap();
        let before = last.insert(record.key_text(), sequence).unwrap_or(0);
        assert_eq!(sequence, before + 1, "{topic}: key {} after {before}", record.key_text());
    }
}

/// The ids in an outbox by topic.
async fn outbox_ids(database: &TestDatabase) -> BTreeMap<String, BTreeSet<String>> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("select topic, message_id::text from outbox").fetch_all(&database.pool).await.unwrap();
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (topic, id) in rows {
        assert!(ids.entry(topic).or_default().insert(id.clone()), "{id} stands twice in an outbox");
    }
    ids
}
