//! What Kafka's own console consumer sees in the topics, checked: each event once, each key in order.
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::say;
use crate::tools;

/// The topics of an order's way.
const TOPICS: [&str; 5] =
    ["orders.events", "inventory.commands", "inventory.events", "payments.commands", "payments.events"];
/// How long the consumer waits for a record that never comes, in milliseconds.
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
    let ends = ends()?;
    for topic in TOPICS {
        let topic = format!("{prefix}{topic}");
        let mut records = consume(&topic, ends.get(&topic).cloned().unwrap_or_default())?;
        records.retain(|record| orders.contains(&record.key));
        let seen = in_order(&records).with_context(|| format!("{topic} is not as it must be"))?;
        ensure!(seen.keys == orders.len(), "{topic} tells of {} of {} orders", seen.keys, orders.len());
        say::answer(&format!(
            "   {topic}: {} events of {} orders, each key 1..n in order; {} repeated by the kill and dropped by their id",
            seen.events, seen.keys, seen.repeated
        ));
    }
    Ok(())
}

/// The end of each partition of each topic.
fn ends() -> Result<BTreeMap<String, BTreeMap<u32, u64>>> {
    let output = tools::kafka_command("get-offsets", &["--exclude-internal-topics".into()])?.output();
    let output = output.context("could not start get-offsets")?;
    ensure!(
        output.status.success(),
        "get-offsets failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let mut ends: BTreeMap<String, BTreeMap<u32, u64>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut parts = line.rsplitn(3, ':');
        let (offset, partition) = (parts.next().map(str::parse), parts.next().map(str::parse));
        if let (Some(Ok(offset)), Some(Ok(partition)), Some(topic)) = (offset, partition, parts.next()) {
            ends.entry(topic.to_owned()).or_default().insert(partition, offset);
        }
    }
    Ok(ends)
}

/// Reads a topic up to its ends of a moment ago; what others send meanwhile is not waited for.
fn consume(topic: &str, mut ends: BTreeMap<u32, u64>) -> Result<Vec<Record>> {
    ends.retain(|_, end| *end > 0);
    let timeout = CONSUMER_TIMEOUT_MS.to_string();
    let mut args: Vec<OsString> =
        ["--topic", topic, "--from-beginning", "--timeout-ms", &timeout].map(Into::into).to_vec();
    let wanted = ["partition=true", "offset=true", "headers=true", "key=true", "value=false"];
    args.extend(
        wanted.iter().flat_map(|wanted| ["--formatter-property".into(), format!("print.{wanted}").into()]),
    );
    let mut consumer = tools::kafka_command("console-consumer", &args)?;
    let mut consumer =
        consumer.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("could not start it")?;
    let output = consumer.stdout.take().context("the consumer has an output")?;
    let read = read_until(BufReader::new(output), ends);
    // It would wait for more; what it read is all that is wanted.
    let _ = consumer.kill();
    consumer.wait().context("could not wait for the consumer")?;
    read
}

/// The records up to each partition's end.
fn read_until(output: impl BufRead, mut ends: BTreeMap<u32, u64>) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut lines = output.lines();
    while !ends.is_empty() {
        let Some(line) = lines.next() else {
            bail!("the consumer stopped before partitions {:?}", ends.keys());
        };
        let line = line.context("the consumer's output broke off")?;
        let (partition, offset, record) =
            read(&line).with_context(|| format!("not a record of ours: {line}"))?;
        if ends.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            ends.remove(&partition);
        }
        records.push(record);
    }
    Ok(records)
}

/// `Partition:0<TAB>Offset:7<TAB>name:value,name:value<TAB>key`
fn read(line: &str) -> Option<(u32, u64, Record)> {
    let mut columns = line.splitn(4, '\t');
    let partition = columns.next()?.strip_prefix("Partition:")?.parse().ok()?;
    let offset = columns.next()?.strip_prefix("Offset:")?.parse().ok()?;
    let (headers, key) = (columns.next()?, columns.next()?);
    let header =
        |name: &str| headers.split(',').find_map(|header| header.strip_prefix(name)?.strip_prefix(':'));
    let sequence = header("ce_sequence")?.parse().ok()?;
    Some((partition, offset, Record { key: key.to_owned(), id: header("ce_id")?.to_owned(), sequence }))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, id: &str, sequence: i64) -> Record {
        Record { key: key.to_owned(), id: id.to_owned(), sequence }
    }

    #[test]
    fn a_printed_record_is_read_by_its_text_headers() {
        let line = "Partition:2\tOffset:7\tce_specversion:1.0,ce_id:e1,ce_time:2026-01-01T00:00:00Z,ce_sequence:3\tk1";
        assert_eq!(read(line), Some((2, 7, record("k1", "e1", 3))));
        assert_eq!(read("Partition:2\tOffset:7\tNO_HEADERS\tk1"), None);
    }

    #[test]
    fn reading_stops_at_the_ends_and_not_before() {
        let line = |partition: u32, offset: u64| {
            format!("Partition:{partition}\tOffset:{offset}\tce_id:{partition}-{offset},ce_sequence:1\tk\n")
        };
        // Partition 0 grows while partition 1 is still to come.
        let output = [line(0, 0), line(0, 1), line(0, 2), line(1, 0), line(1, 1)].concat();
        let ends = BTreeMap::from([(0, 2), (1, 1)]);
        assert_eq!(read_until(output.as_bytes(), ends.clone()).unwrap().len(), 4);
        assert!(read_until(line(0, 0).as_bytes(), ends).is_err(), "a topic that breaks off");
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
