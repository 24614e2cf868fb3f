//! Reading topics without a group: whole ranges, or what comes.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use waybill_messaging::config;
use waybill_messaging::record::Record;

use crate::cli::Kafka;

/// How long one question to the brokers may take; it outlasts an election.
const REQUEST_MS_MAX: u64 = 15_000;
/// How long the brokers may send nothing while a range is read. Then it is an error: not looked to the end.
const SILENCE_MS_MAX: u64 = 20_000;

/// Offsets of one partition, the end not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// Full name.
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// A consumer of no group: it stores nothing anywhere.
pub(crate) struct Reader {
    consumer: StreamConsumer,
    brokers: String,
}

impl Reader {
    pub(crate) fn new(kafka: &Kafka) -> anyhow::Result<Self> {
        let brokers = kafka.bootstrap_servers.clone();
        let consumer = config::admin(&brokers, "waybillctl")
            // Needed by librdkafka for any consumer; never joined, since partitions are assigned by hand.
            .set("group.id", "waybillctl")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "50")
            .create()
            .with_context(|| format!("no Kafka client can be made for {brokers:?}"))?;
        Ok(Self { consumer, brokers })
    }

    fn asked<T>(
        &self,
        what: &str,
        question: impl FnOnce(Duration) -> Result<T, KafkaError>,
    ) -> anyhow::Result<T> {
        tokio::task::block_in_place(|| question(Duration::from_millis(REQUEST_MS_MAX))).with_context(|| {
            format!("the brokers at {} did not tell {what}; check that they run", self.brokers)
        })
    }

    /// Number of partitions of a topic (full name).
    pub(crate) fn partitions(&self, topic: &str) -> anyhow::Result<i32> {
        // All are asked for, since asking for one by name may create it.
        let metadata = self.asked("their topics", |limit| self.consumer.fetch_metadata(None, limit))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else {
            bail!(
                "topic {topic} is not on the brokers at {}; check the name and --prefix (`waybillctl topics plan` \
                 lists what should be there)",
                self.brokers
            );
        };
        Ok(i32::try_from(found.partitions().len())?)
    }

    /// All that lies on a topic now.
    pub(crate) fn ranges(&self, topic: &str, partition: Option<i32>) -> anyhow::Result<Vec<Range>> {
        let partitions = self.partitions(topic)?;
        if let Some(partition) = partition.filter(|partition| *partition >= partitions) {
            bail!("{topic} has no partition {partition}: it has {partitions}, numbered from 0");
        }
        let numbers = (0..partitions).filter(|number| partition.is_none_or(|only| only == *number));
        numbers.map(|number| self.range(topic, number)).collect()
    }

    /// All that lies on a partition now.
    pub(crate) fn range(&self, topic: &str, partition: i32) -> anyhow::Result<Range> {
        let (from, to) = self.asked("the offsets of a partition", |limit| {
            self.consumer.fetch_watermarks(topic, partition, limit)
        })?;
        Ok(Range { topic: topic.to_owned(), partition, from, to })
    }

    /// Narrows ranges to the records between two times.
    pub(crate) fn within(
        &self,
        ranges: &mut [Range],
        since: Option<DateTime<Utc>>,
        until: Option<DateTime<Utc>>,
    ) -> anyhow::Result<()> {
        if let Some(since) = since {
            let offsets = self.offsets_at(ranges, since)?;
            ranges.iter_mut().zip(offsets).for_each(|(range, at)| range.from = range.from.max(at));
        }
        if let Some(until) = until {
            let offsets = self.offsets_at(ranges, until)?;
            ranges.iter_mut().zip(offsets).for_each(|(range, at)| range.to = range.to.min(at));
        }
        Ok(())
    }

    /// The first offset of each range at or after `time`; its end when there is none.
    fn offsets_at(&self, ranges: &[Range], time: DateTime<Utc>) -> anyhow::Result<Vec<i64>> {
        // An empty question is an invalid one.
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let mut wanted = TopicPartitionList::new();
        for range in ranges {
            let time = Offset::Offset(time.timestamp_millis());
            wanted.add_partition_offset(&range.topic, range.partition, time)?;
        }
        let found =
            self.asked("the offsets of a time", |limit| self.consumer.offsets_for_times(wanted, limit))?;
        let offsets = ranges.iter().map(|range| {
            match found.find_partition(&range.topic, range.partition).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => range.to,
            }
        });
        Ok(offsets.collect())
    }

    /// Reads ranges to their ends, topic after topic, each partition in order, until `each` breaks off.
    pub(crate) async fn read(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(Record) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let mut rest = ranges;
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|range| range.topic == first.topic).count();
            let (topic, more) = rest.split_at(same);
            if self.read_topic(topic, &mut each).await?.is_break() {
                break;
            }
            rest = more;
        }
        Ok(())
    }

    async fn read_topic(
        &self,
        ranges: &[Range],
        each: &mut impl FnMut(Record) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<ControlFlow<()>> {
        let open = ranges.iter().filter(|range| range.from < range.to);
        let mut open: HashMap<i32, &Range> = open.map(|range| (range.partition, range)).collect();
        self.assign(open.values().map(|range| (range.topic.as_str(), range.partition, range.from)))?;
        while !open.is_empty() {
            let limit = Duration::from_millis(SILENCE_MS_MAX);
            let Ok(received) = tokio::time::timeout(limit, self.consumer.recv()).await else {
                bail!("the brokers at {} sent nothing for {limit:?}: not looked to the end", self.brokers);
            };
            let message = match received {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(partition)) => {
                    open.remove(&partition);
                    continue;
                }
                Err(error) => return Err(error).context("a topic could not be read to its end"),
            };
            let Some(range) = open.get(&message.partition()) else { continue };
            let (offset, to) = (message.offset(), range.to);
            if offset < to && each(record(&message))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if offset + 1 >= to {
                open.remove(&message.partition());
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads what comes after the ends of these ranges, until `each` breaks off.
    pub(crate) async fn follow(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(Record) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        self.assign(ranges.iter().map(|range| (range.topic.as_str(), range.partition, range.to)))?;
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    if each(record(&message))?.is_break() {
                        return Ok(());
                    }
                }
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) => return Err(error).context("the topics can not be followed any more"),
            }
        }
    }

    fn assign<'a>(&self, places: impl Iterator<Item = (&'a str, i32, i64)>) -> anyhow::Result<()> {
        let mut assignment = TopicPartitionList::new();
        for (topic, partition, from) in places {
            assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
        }
        self.consumer.assign(&assignment).context("partitions can not be assigned")
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
    });
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(|key| key.to_vec().into()),
        headers: headers.unwrap_or_default(),
        payload: message.payload().map(|payload| payload.to_vec().into()),
    }
}
