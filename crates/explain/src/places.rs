//! Where the story's messages lie on their topics: found by the key's partition, from the time of the first one on.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use waybill_messaging::headers::CE_ID;
use waybill_messaging::partitioner::partition_of;
use waybill_messaging::reader::{Range, ReadError, Reader};

use crate::facts::Said;
use crate::story::Story;

/// Clocks of services and relay differ: messages are looked for from so long before the first was said.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::minutes(1);
/// Records read of one topic at most, unless told otherwise; a story's messages lie close together.
const RECORDS_MAX: u64 = 500_000;

/// The header of a dead letter's mirror that names the letter.
const DLQ_ID: &str = "dlq_id";

/// How far is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records of one topic.
    pub records: u64,
    /// For all topics together.
    pub time: Duration,
}

impl Default for Limits {
    /// For a person at a terminal, who can interrupt it.
    fn default() -> Self {
        Self { records: RECORDS_MAX, time: Duration::from_secs(300) }
    }
}

/// Where one message lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Place {
    /// Full name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
    /// When it was sent, RFC 3339.
    pub time: Option<String>,
}

/// A topic that was not looked at to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NotLooked {
    /// Full name.
    pub topic: String,
    /// Why not.
    pub why: String,
}

/// Places by topic and message id, in their order: a message that was sent twice has two.
#[derive(Debug, Default)]
pub struct Places {
    found: HashMap<(String, String), Vec<Place>>,
    pub(crate) looked: bool,
    pub(crate) not_looked: Vec<NotLooked>,
}

/// Why a topic was not looked at to its end.
enum Stopped {
    Here(String),
    /// The next topic would fare no better.
    Everywhere(String),
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        let why = chain(&error);
        match error {
            ReadError::NoTopic { .. } | ReadError::NoPartition { .. } | ReadError::Broken { .. } => {
                Self::Here(why)
            }
            ReadError::Client { .. } | ReadError::NoAnswer { .. } | ReadError::Silence { .. } => {
                Self::Everywhere(why)
            }
        }
    }
}

impl Places {
    /// Looks for every published message. What can not be looked at is remembered, with the reason.
    pub async fn find(reader: &Reader, story: &Story, limits: Limits) -> Self {
        let mut by_topic: BTreeMap<&str, Vec<&Said>> = BTreeMap::new();
        for (_, said) in story.said().filter(|(_, said)| said.published) {
            by_topic.entry(&said.topic).or_default().push(said);
        }
        let deadline = Instant::now() + limits.time;
        let mut places = Self { looked: true, ..Self::default() };
        let mut over: Option<String> = None;
        for (topic, said) in by_topic {
            let stopped = match &over {
                Some(why) => Some(why.clone()),
                None => match tokio::time::timeout_at(deadline, places.look(reader, topic, &said, limits))
                    .await
                {
                    Ok(Ok(())) => None,
                    Ok(Err(Stopped::Here(why))) => Some(why),
                    Ok(Err(Stopped::Everywhere(why))) => over.insert(why).clone().into(),
                    Err(_) => {
                        over.insert(format!("the time for looking, {:?}, was up", limits.time)).clone().into()
                    }
                },
            };
            places.not_looked.extend(stopped.map(|why| NotLooked { topic: topic.to_owned(), why }));
        }
        places
    }

    /// Nothing was looked at although it should have been.
    #[must_use]
    pub fn none(story: &Story, why: &str) -> Self {
        let mut topics: Vec<&str> = story.said().map(|(_, said)| said.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        let not_looked =
            topics.into_iter().map(|topic| NotLooked { topic: topic.to_owned(), why: why.to_owned() });
        Self { not_looked: not_looked.collect(), ..Self::default() }
    }

    /// Where the `nth` outbox row of this message on its topic lies.
    pub(crate) fn of(&self, said: &Said, nth: usize) -> Option<&Place> {
        self.found.get(&(said.topic.clone(), said.message_id.clone()))?.get(nth)
    }

    /// Published rows that lie nowhere (any more), as message id and topic; only of topics that were looked at to the end.
    pub(crate) fn missing(&self, story: &Story) -> Vec<(String, String)> {
        if !self.looked {
            return Vec::new();
        }
        let published = story.said().map(|(_, said)| said).filter(|said| said.published);
        let looked = |said: &&Said| !self.not_looked.iter().any(|not_looked| not_looked.topic == said.topic);
        let gone = published.filter(looked).filter(|said| self.of(said, 0).is_none());
        gone.map(|said| (said.message_id.clone(), said.topic.clone())).collect()
    }

    async fn look(
        &mut self,
        reader: &Reader,
        topic: &str,
        said: &[&Said],
        limits: Limits,
    ) -> Result<(), Stopped> {
        let first = said.iter().filter_map(|said| time(&said.created_at)).min();
        let first = first.ok_or_else(|| Stopped::Here("its outbox rows have no readable time".to_owned()))?;
        let since = first - CLOCKS_DIFFER_MAX;
        let partitions = reader.partitions(topic)?;
        let keys = said.iter().filter_map(|said| said.key.as_deref());
        let mut near: Vec<i32> = keys.map(|key| partition_of(key.as_bytes(), partitions)).collect();
        near.sort_unstable();
        near.dedup();
        // Elsewhere only if the key's partition does not have them: another producer may have sent them.
        let far: Vec<i32> = (0..partitions).filter(|partition| !near.contains(partition)).collect();
        let mut wanted = Wanted::new(said);
        for numbers in [near, far] {
            let ranges = numbers.iter().map(|number| reader.range(topic, *number));
            let mut ranges = ranges.collect::<Result<Vec<Range>, _>>()?;
            reader.within(&mut ranges, Some(since), None)?;
            let read = wanted.read(reader, &ranges, limits.records).await;
            for place in std::mem::take(&mut wanted.found) {
                self.found.entry((topic.to_owned(), place.0)).or_default().push(place.1);
            }
            if read? {
                return Ok(());
            }
            if wanted.read >= limits.records {
                return Err(Stopped::Here(format!(
                    "{} records from {} on were read; what was not among them may lie further on",
                    wanted.read,
                    since.to_rfc3339_opts(SecondsFormat::Secs, true)
                )));
            }
        }
        Ok(())
    }
}

/// What is looked for on one topic.
struct Wanted {
    /// How often each message was sent and not found yet.
    ids: HashMap<String, usize>,
    open: usize,
    read: u64,
    found: Vec<(String, Place)>,
}

impl Wanted {
    fn new(said: &[&Said]) -> Self {
        let mut ids: HashMap<String, usize> = HashMap::new();
        for said in said {
            *ids.entry(said.message_id.clone()).or_default() += 1;
        }
        Self { ids, open: said.len(), read: 0, found: Vec::new() }
    }

    /// Reads until all are found, or no more may be read; tells whether all are found.
    async fn read(&mut self, reader: &Reader, ranges: &[Range], records_max: u64) -> Result<bool, Stopped> {
        let reading = reader.read::<Stopped>(ranges, |record| {
            self.read += 1;
            // A mirror of a dead letter has the letter's id in the outbox, and the original's as ce_id.
            let ids = [record.header(DLQ_ID), record.header(CE_ID)].into_iter().flatten();
            for id in ids {
                let Some(rest) = self.ids.get_mut(id).filter(|rest| **rest > 0) else { continue };
                *rest -= 1;
                self.open -= 1;
                let place = Place {
                    topic: record.topic.clone(),
                    partition: record.partition,
                    offset: record.offset,
                    time: record.timestamp_ms.and_then(of_ms),
                };
                self.found.push((id.to_owned(), place));
                break;
            }
            let enough = self.open == 0 || self.read >= records_max;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        reading.await?;
        Ok(self.open == 0)
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// Milliseconds since the epoch as RFC 3339 in UTC.
fn of_ms(ms: i64) -> Option<String> {
    Some(DateTime::from_timestamp_millis(ms)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
