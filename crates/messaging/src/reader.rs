//! Reading topics without a group: whole ranges, or what comes.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config;
use crate::record::Record;

/// How long a reader waits for the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// One question may take so long.
    pub request: Duration,
    /// The brokers may send nothing for so long while a range is read. Then it is an error: not looked to the end.
    pub silence: Duration,
}

impl Default for Patience {
    /// For a person at a terminal: it outlasts an election.
    fn default() -> Self {
        Self { request: Duration::from_secs(15), silence: Duration::from_secs(20) }
    }
}

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client's settings are refused.
    #[error("no Kafka client can be made for {brokers:?}")]
    Client {
        /// Whom it would have asked.
        brokers: String,
        /// Why.
        source: KafkaError,
    },
    /// No broker answered a question.
    #[error("the brokers at {brokers} did not tell {what}; check that they run")]
    NoAnswer {
        /// Who was asked.
        brokers: String,
        /// What was asked.
        what: &'static str,
        /// Why.
        source: KafkaError,
    },
    /// There is no such topic.
    #[error(
        "topic {topic} is not on the brokers at {brokers}; check the name and --prefix (`waybillctl topics plan` lists \
         what should be there)"
    )]
    NoTopic {
        /// Its full name.
        topic: String,
        /// Who was asked.
        brokers: String,
    },
    /// There is no such partition.
    #[error("{topic} has no partition {partition}: it has {partitions}, numbered from 0")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The one asked for.
        partition: i32,
        /// How many there are.
        partitions: i32,
    },
    /// The brokers fell silent.
    #[error("the brokers at {brokers} sent nothing for {silence:?}: not looked to the end")]
    Silence {
        /// Who was asked.
        brokers: String,
        /// For how long.
        silence: Duration,
    },
    /// Anything else that ended the reading.
    #[error("{what}")]
    Broken {
        /// What can not go on.
        what: &'static str,
        /// Why.
        source: KafkaError,
    },
}

fn broken(what: &'static str) -> impl FnOnce(KafkaError) -> ReadError {
    move |source| ReadError::Broken { what, source }
}

/// Offsets of one partition, the end not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Full name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// One after the last offset.
    pub to: i64,
}

/// A consumer of no group: it stores nothing anywhere.
///
/// Its questions block the thread they are asked on, for which the runtime must have several threads.
pub struct Reader {
    consumer: StreamConsumer,
    brokers: String,
    patience: Patience,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Reader {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// [`ReadError::Client`].
    pub fn new(brokers: &str, client_id: &str, patience: Patience) -> Result<Self, ReadError> {
        let brokers = brokers.to_owned();
        let consumer = config::admin(&brokers, client_id)
            // Needed by librdkafka for any consumer; never joined, since partitions are assigned by hand.
            .set("group.id", "waybillctl")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "50")
            .create()
            .map_err(|source| ReadError::Client { brokers: brokers.clone(), source })?;
        Ok(Self { consumer, brokers, patience })
    }

    fn asked<T>(
        &self,
        what: &'static str,
        question: impl FnOnce(Duration) -> Result<T, KafkaError>,
    ) -> Result<T, ReadError> {
        let answer = tokio::task::block_in_place(|| question(self.patience.request));
        answer.map_err(|source| ReadError::NoAnswer { brokers: self.brokers.clone(), what, source })
    }

    /// Number of partitions of a topic (full name).
    ///
    /// # Errors
    /// [`ReadError::NoTopic`], or nobody answers.
    pub fn partitions(&self, topic: &str) -> Result<i32, ReadError> {
        // All are asked for, since asking for one by name may create it.
        let metadata = self.asked("their topics", |limit| self.consumer.fetch_metadata(None, limit))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else {
            return Err(ReadError::NoTopic { topic: topic.to_owned(), brokers: self.brokers.clone() });
        };
        Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX))
    }

    /// All that lies on a topic now.
    ///
    /// # Errors
    /// [`ReadError::NoTopic`], [`ReadError::NoPartition`], or nobody answers.
    pub fn ranges(&self, topic: &str, partition: Option<i32>) -> Result<Vec<Range>, ReadError> {
        let partitions = self.partitions(topic)?;
        if let Some(partition) = partition.filter(|partition| *partition >= partitions) {
            return Err(ReadError::NoPartition { topic: topic.to_owned(), partition, partitions });
        }
        let numbers = (0..partitions).filter(|number| partition.is_none_or(|only| only == *number));
        numbers.map(|number| self.range(topic, number)).collect()
    }

    /// All that lies on a partition now.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn range(&self, topic: &str, partition: i32) -> Result<Range, ReadError> {
        let (from, to) = self.asked("the offsets of a partition", |limit| {
            self.consumer.fetch_watermarks(topic, partition, limit)
        })?;
        Ok(Range { topic: topic.to_owned(), partition, from, to })
    }

    /// Narrows ranges to the records between two times.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn within(
        &self,
        ranges: &mut [Range],
        since: Option<DateTime<Utc>>,
        until: Option<DateTime<Utc>>,
    ) -> Result<(), ReadError> {
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
    fn offsets_at(&self, ranges: &[Range], time: DateTime<Utc>) -> Result<Vec<i64>, ReadError> {
        // An empty question is an invalid one.
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let mut wanted = TopicPartitionList::new();
        for range in ranges {
            let time = Offset::Offset(time.timestamp_millis());
            wanted
                .add_partition_offset(&range.topic, range.partition, time)
                .map_err(broken("a time is none that Kafka knows"))?;
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
    ///
    /// # Errors
    /// `each`'s own, and when it could not be read to the end.
    pub async fn read<E: From<ReadError>>(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(Record) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
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

    async fn read_topic<E: From<ReadError>>(
        &self,
        ranges: &[Range],
        each: &mut impl FnMut(Record) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let open = ranges.iter().filter(|range| range.from < range.to);
        let mut open: HashMap<i32, &Range> = open.map(|range| (range.partition, range)).collect();
        self.assign(open.values().map(|range| (range.topic.as_str(), range.partition, range.from)))?;
        while !open.is_empty() {
            let silence = self.patience.silence;
            let Ok(received) = tokio::time::timeout(silence, self.consumer.recv()).await else {
                return Err(ReadError::Silence { brokers: self.brokers.clone(), silence }.into());
            };
            let message = match received {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(partition)) => {
                    open.remove(&partition);
                    continue;
                }
                Err(error) => return Err(broken("a topic could not be read to its end")(error).into()),
            };
            let Some(range) = open.get(&message.partition()) else { continue };
            let (offset, to) = (message.offset(), range.to);
            if offset < to && each(Record::of(&message))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if offset + 1 >= to {
                open.remove(&message.partition());
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads what comes after the ends of these ranges, until `each` breaks off.
    ///
    /// # Errors
    /// `each`'s own, and when it can not go on.
    pub async fn follow<E: From<ReadError>>(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(Record) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.assign(ranges.iter().map(|range| (range.topic.as_str(), range.partition, range.to)))?;
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    if each(Record::of(&message))?.is_break() {
                        return Ok(());
                    }
                }
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) => return Err(broken("the topics can not be followed any more")(error).into()),
            }
        }
    }

    fn assign<'a>(&self, places: impl Iterator<Item = (&'a str, i32, i64)>) -> Result<(), ReadError> {
        const WHAT: &str = "partitions can not be assigned";
        let mut assignment = TopicPartitionList::new();
        for (topic, partition, from) in places {
            assignment.add_partition_offset(topic, partition, Offset::Offset(from)).map_err(broken(WHAT))?;
        }
        self.consumer.assign(&assignment).map_err(broken(WHAT))
    }
}
