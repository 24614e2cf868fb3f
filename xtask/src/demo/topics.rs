//! What Kafka's own console consumer sees in the topics, checked: each event once, each key in order.
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};

use crate::say;
use crate::tools;

/// The topics of an order's way.
const TOPICS: [&str; 5] =
    ["orders.events", "inventory.commands", "inventory.events", "payments.commands", "payments.events"];
/// How long the consumer waits for a record that retention has removed, in milliseconds.
const CONSUMER_TIMEOUT_MS: u64 = 15_000;

/// One record as the console consumer prints it.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    key: String,
    id: String,
    sequence: i64,
}

/// Reads all five topics and checks the records of these orders.
pub(super) fn check(orders: &BTreeSet<String>) -> Result<()> {
    say::answer("   reading the topics with Kafka's console consumer ...");
    let prefix = std::env::var("WAYBILL_TOPIC_PREFIX").unwrap_or_default();
    let ends = end_offsets()?;
    for topic in TOPICS {
        let topic = format!("{prefix}{topic}");
        let count = ends.get(&topic).copied().unwrap_or(0);
        let records: Vec<Record> =
            consume(&topic, count)?.into_iter().filter(|record| orders.contains(&record.key)).collect();
        let seen = in_order(&records).with_context(|| format!("{topic} is not as it must be"))?;
        ensure!(seen.keys == orders.len(), "{topic} tells of {} of {} orders", seen.keys, orders.len());
        say::answer(&format!(
            "   {topic}: {} events of {} orders, each key 1..n in order; {} repeated by the kill and dropped by their id",
            seen.events, seen.keys, seen.repeated
        ));
    }
    Ok(())
}

/// How many records each topic has had.
fn end_offsets() -> Result<BTreeMap<String, u64>> {
    let told = run("get-offsets", &["--exclude-internal-topics"])?;
    let mut ends = BTreeMap::new();
    for line in told.lines() {
        let mut parts = line.rsplitn(3, ':');
        let (offset, _partition, topic) = (parts.next(), parts.next(), parts.next());
        if let (Some(offset), Some(topic)) = (offset.and_then(|offset| offset.parse::<u64>().ok()), topic) {
            *ends.entry(topic.to_owned()).or_default() += offset;
        }
    }
    Ok(ends)
}

fn consume(topic: &str, count: u64) -> Result<Vec<Record>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let (count, timeout) = (count.to_string(), CONSUMER_TIMEOUT_MS.to_string());
    let mut args =
        vec!["--topic", topic, "--from-beginning", "--max-messages", &count, "--timeout-ms", &timeout];
    for property in ["print.headers=true", "print.key=true", "print.value=false"] {
        args.extend(["--formatter-property", property]);
    }
    run("console-consumer", &args)?
        .lines()
        .map(|line| read(line).with_context(|| format!("a record without its text headers: {line}")))
        .collect()
}

/// `name:value,name:value<TAB>key`
fn read(line: &str) -> Option<Record> {
    let (headers, key) = line.split_once('\t')?;
    let header =
        |name: &str| headers.split(',').find_map(|header| header.strip_prefix(name)?.strip_prefix(':'));
    Some(Record {
        key: key.to_owned(),
        id: header("ce_id")?.to_owned(),
        sequence: header("ce_sequence")?.parse().ok()?,
    })
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    events: usize,
    keys: usize,
    repeated: usize,
}

/// Drops equal ids and checks that each key's sequence is 1..n.
fn in_order(records: &[Record]) -> Result<Seen> {
    let mut ids = BTreeSet::new();
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for record in records.iter().filter(|record| ids.insert(&record.id)) {
        let before = last.insert(&record.key, record.sequence).unwrap_or(0);
        ensure!(
            record.sequence == before + 1,
            "key {}: sequence {} comes after {before}",
            record.key,
            record.sequence
        );
    }
    Ok(Seen { events: ids.len(), keys: last.len(), repeated: records.len() - ids.len() })
}

fn run(tool: &str, args: &[&str]) -> Result<String> {
    let args: Vec<OsString> = args.iter().map(Into::into).collect();
    let output =
        tools::kafka_command(tool, &args)?.output().with_context(|| format!("could not start {tool}"))?;
    ensure!(output.status.success(), "{tool} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, id: &str, sequence: i64) -> Record {
        Record { key: key.to_owned(), id: id.to_owned(), sequence }
    }

    #[test]
    fn a_printed_record_is_read_by_its_text_headers() {
        let line = "ce_specversion:1.0,ce_id:e1,ce_time:2026-01-01T00:00:00Z,ce_sequence:3\tk1";
        assert_eq!(read(line), Some(record("k1", "e1", 3)));
        assert_eq!(read("NO_HEADERS\tk1"), None);
    }

    #[test]
    fn repeats_are_dropped_and_gaps_and_inversions_found() {
        let repeated = [
            record("k", "a", 1),
            record("k", "b", 2),
            record("k", "a", 1),
            record("k", "b", 2),
            record("k", "c", 3),
        ];
        assert_eq!(in_order(&repeated).unwrap(), Seen { events: 3, keys: 1, repeated: 2 });
        assert!(in_order(&[record("k", "a", 1), record("k", "c", 3)]).is_err(), "a gap");
        assert!(in_order(&[record("k", "b", 2), record("k", "a", 1)]).is_err(), "an inversion");
        assert!(in_order(&[record("k", "a", 1), record("k", "b", 1)]).is_err(), "a version twice");
    }
}
