//! Where the order's messages lie on their topics: found by the key's partition, from the time of the first one on.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use waybill_messaging::headers::CE_ID;
use waybill_messaging::partitioner::partition_of;

use super::facts::{Said, Story};
use crate::cli::Kafka;
use crate::kafka::{Range, Reader};
use crate::when;

/// Clocks of services and relay differ: messages are looked for from so long before the first was said.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::minutes(1);
/// Records read of one partition at most; an order's messages lie close together.
const RECORDS_MAX: u64 = 500_000;

/// The header of a dead letter's mirror that names the letter.
const DLQ_ID: &str = "dlq_id";

/// Where one message lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// When it was sent, RFC 3339.
    pub(super) time: Option<String>,
}

/// Places by topic and message id, in their order: a message that was sent twice has two.
#[derive(Debug, Default)]
pub(super) struct Places {
    found: HashMap<(String, String), Vec<Place>>,
}

impl Places {
    /// Where the `nth` outbox row of this message on its topic lies.
    pub(super) fn of(&self, said: &Said, nth: usize) -> Option<&Place> {
        self.found.get(&(said.topic.clone(), said.message_id.clone()))?.get(nth)
    }

    /// Published rows that lie nowhere (any more), as message id and topic.
    pub(super) fn missing(&self, story: &Story) -> Vec<(String, String)> {
        let published = story.said().map(|(_, said)| said).filter(|said| said.published);
        let gone = published.filter(|said| self.of(said, 0).is_none());
        gone.map(|said| (said.message_id.clone(), said.topic.clone())).collect()
    }
}

/// Looks for every published message.
pub(super) async fn find(kafka: &Kafka, story: &Story) -> anyhow::Result<Places> {
    let mut by_topic: BTreeMap<&str, Vec<&Said>> = BTreeMap::new();
    for (_, said) in story.said().filter(|(_, said)| said.published) {
        by_topic.entry(&said.topic).or_default().push(said);
    }
    let reader = Reader::new(kafka)?;
    let mut places = Places::default();
    for (topic, said) in by_topic {
        places.look(&reader, topic, &said).await?;
    }
    Ok(places)
}

impl Places {
    async fn look(&mut self, reader: &Reader, topic: &str, said: &[&Said]) -> anyhow::Result<()> {
        let first = said.iter().filter_map(|said| time(&said.created_at)).min();
        let first = first.with_context(|| format!("an outbox row of {topic} has no readable time"))?;
        let partitions = reader.partitions(topic)?;
        let keys = said.iter().filter_map(|said| said.key.as_deref());
        let mut near: Vec<i32> = keys.map(|key| partition_of(key.as_bytes(), partitions)).collect();
        near.sort_unstable();
        near.dedup();
        // Elsewhere only if the key's partition does not have them: another producer may have sent them.
        let far: Vec<i32> = (0..partitions).filter(|partition| !near.contains(partition)).collect();
        for numbers in [near, far] {
            let ranges = numbers.iter().map(|number| reader.range(topic, *number));
            let mut ranges = ranges.collect::<anyhow::Result<Vec<Range>>>()?;
            reader.within(&mut ranges, Some(first - CLOCKS_DIFFER_MAX), None)?;
            if self.read(reader, &ranges, said).await? {
                break;
            }
        }
        Ok(())
    }

    /// Reads until all are found; tells whether they are.
    async fn read(&mut self, reader: &Reader, ranges: &[Range], said: &[&Said]) -> anyhow::Result<bool> {
        let mut wanted: HashMap<&str, usize> = HashMap::new();
        for said in said {
            *wanted.entry(&said.message_id).or_default() += 1;
        }
        let mut open = said.len();
        let mut read: u64 = 0;
        let reading = reader.read(ranges, |record| {
            read += 1;
            // A mirror of a dead letter has the letter's id in the outbox, and the original's as ce_id.
            let ids = [record.header(DLQ_ID), record.header(CE_ID)].into_iter().flatten();
            for id in ids {
                let Some(rest) = wanted.get_mut(id).filter(|rest| **rest > 0) else { continue };
                *rest -= 1;
                open -= 1;
                let place = Place {
                    topic: record.topic.clone(),
                    partition: record.partition,
                    offset: record.offset,
                    time: record.timestamp_ms.and_then(when::of_ms),
                };
                self.found.entry((record.topic.clone(), id.to_owned())).or_default().push(place);
                break;
            }
            let enough = open == 0 || read >= RECORDS_MAX;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        reading.await?;
        Ok(open == 0)
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}
