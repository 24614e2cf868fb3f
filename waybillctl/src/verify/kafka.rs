//! The topics: how far they go, how far groups have read, and their records as a stream, without their values.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use waybill_events::topics::manifest_parsed;
use waybill_messaging::config;
use waybill_messaging::headers::{CE_ID, CE_SEQUENCE, CE_SOURCE, CE_TYPE};
use waybill_messaging::topics::Topic;

use super::databases::Owner;

/// Longest wait for one answer of the brokers, or for the next record of a topic that has more.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Records handed on at a time: their ids are one question to a database.
const BATCH_RECORDS_MAX: usize = 2_000;
/// What our services call themselves in `ce_source`.
const OUR_SOURCE: &str = "/waybill/";

/// The manifest's topics at some brokers.
pub(crate) struct Topics {
    bootstrap: String,
    prefix: String,
    declared: Vec<Topic>,
}

/// A partition at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partition {
    pub(crate) number: i32,
    /// The first offset that is kept, and the one that the next record gets.
    pub(crate) low: i64,
    pub(crate) high: i64,
}

/// A topic at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    pub(crate) partitions: Vec<Partition>,
    /// Group without prefix and partition: the offset up to which it says it has read.
    pub(crate) committed: HashMap<(String, i32), i64>,
}

/// A record, with what of its headers matters here.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// When it was appended or made, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    pub(crate) key: Vec<u8>,
    /// The first bytes of the value's SHA-256.
    pub(crate) digest: u32,
    pub(crate) id: Option<Uuid>,
    pub(crate) kind: Option<String>,
    pub(crate) sequence: Option<i64>,
    /// Whether it says that a service of ours wrote it.
    pub(crate) ours: bool,
    /// On a dead letter topic: the dead letter.
    pub(crate) dead_letter: Option<Uuid>,
    /// On a retry topic: which appearance of the message.
    pub(crate) hop: Option<i64>,
}

impl Topics {
    pub(crate) fn new(bootstrap: &str, prefix: &str) -> anyhow::Result<Self> {
        let manifest = manifest_parsed().context("this program was built with a manifest it can not read")?;
        let declared = manifest.topics().to_vec();
        Ok(Self { bootstrap: bootstrap.to_owned(), prefix: prefix.to_owned(), declared })
    }

    pub(crate) fn all(&self) -> &[Topic] {
        &self.declared
    }

    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The topics of messages that a service says; not those it retries by, nor its dead letters.
    pub(crate) fn written_by(&self, owner: Owner) -> impl Iterator<Item = &Topic> {
        self.declared.iter().filter(move |topic| topic.producer == owner.name() && is_main(topic))
    }

    /// The topics of messages that a group reads.
    pub(crate) fn read_by(&self, owner: Owner) -> impl Iterator<Item = &Topic> {
        let reads = move |topic: &&Topic| topic.consumers.iter().any(|group| group == owner.name());
        self.declared.iter().filter(move |topic| reads(topic) && is_main(topic))
    }

    /// How far every declared topic goes and is read, now; topics that are missing are left out.
    pub(crate) fn survey(&self) -> anyhow::Result<HashMap<String, Survey>> {
        tokio::task::block_in_place(|| {
            let asked: BaseConsumer = self.client("waybillctl-verify").create()?;
            let known = asked.fetch_metadata(None, ANSWER_WAIT);
            let known = known
                .with_context(|| format!("the brokers at {} did not list their topics", self.bootstrap))?;
            let mut surveys = HashMap::new();
            for topic in &self.declared {
                let full = self.full(&topic.name);
                let Some(found) = known.topics().iter().find(|found| found.name() == full) else { continue };
                let mut partitions = Vec::new();
                for number in found.partitions().iter().map(|partition| partition.id()) {
                    let ends = asked.fetch_watermarks(&full, number, ANSWER_WAIT);
                    let (low, high) =
                        ends.with_context(|| format!("the ends of {full} [{number}] were not told"))?;
                    partitions.push(Partition { number, low, high });
                }
                surveys.insert(topic.name.clone(), Survey { partitions, committed: HashMap::new() });
            }
            for owner in Owner::ALL {
                self.committed(owner, &mut surveys)?;
            }
            Ok(surveys)
        })
    }

    /// Asks for the offsets of a group, without joining it.
    fn committed(&self, owner: Owner, surveys: &mut HashMap<String, Survey>) -> anyhow::Result<()> {
        let group = format!("{}{}", self.prefix, owner.name());
        let asked: BaseConsumer = self.client(&group).create()?;
        let mut list = TopicPartitionList::new();
        let names: HashMap<String, String> =
            self.read_by(owner).map(|topic| (self.full(&topic.name), topic.name.clone())).collect();
        for (full, name) in &names {
            for partition in surveys.get(name).map(|survey| survey.partitions.as_slice()).unwrap_or_default()
            {
                list.add_partition(full, partition.number);
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        let told = asked.committed_offsets(list, ANSWER_WAIT);
        let told = told.with_context(|| format!("the offsets of the group {group} were not told"))?;
        for element in told.elements() {
            if let (Offset::Offset(offset), Some(name)) = (element.offset(), names.get(element.topic()))
                && let Some(survey) = surveys.get_mut(name)
            {
                survey.committed.insert((owner.name().to_owned(), element.partition()), offset);
            }
        }
        Ok(())
    }

    /// The records of a topic up to the ends of a survey.
    pub(crate) fn read(&self, name: &str, partitions: &[Partition]) -> anyhow::Result<Reading> {
        let topic = self.full(name);
        let mut config = self.client("waybillctl-verify");
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "20");
        config.set("auto.offset.reset", "earliest");
        // Little ahead: each record that waits, however small, takes some hundred bytes more than its own.
        config.set("queued.min.messages", "4000").set("queued.max.messages.kbytes", "4096");
        config.set("fetch.message.max.bytes", "524288");
        let mut list = TopicPartitionList::new();
        let mut open = BTreeMap::new();
        for partition in partitions.iter().filter(|partition| partition.high > partition.low) {
            list.add_partition_offset(&topic, partition.number, Offset::Offset(partition.low))?;
            open.insert(partition.number, partition.high);
        }
        let mut consumer = None;
        if !open.is_empty() {
            let reader: StreamConsumer = config.create()?;
            reader.assign(&list).with_context(|| format!("{topic} can not be read"))?;
            consumer = Some(reader);
        }
        Ok(Reading { topic, consumer, open })
    }

    fn client(&self, group: &str) -> rdkafka::config::ClientConfig {
        let mut config = config::admin(&self.bootstrap, "waybillctl-verify");
        // Never joined, never committed to.
        config.set("group.id", group).set("enable.auto.commit", "false");
        config
    }
}

/// Whether it is one of messages, not one of retries or dead letters of another.
pub(crate) fn is_main(topic: &Topic) -> bool {
    !is_dead_letters(&topic.name) && !is_retries(&topic.name)
}

pub(crate) fn is_dead_letters(name: &str) -> bool {
    name.ends_with(".dlq")
}

pub(crate) fn is_retries(name: &str) -> bool {
    name.contains(".retry.")
}

/// A topic being read.
pub(crate) struct Reading {
    topic: String,
    /// None when there is nothing to read.
    consumer: Option<StreamConsumer>,
    /// Partitions not read to their end yet, with it.
    open: BTreeMap<i32, i64>,
}

impl Reading {
    /// The next records, each partition's in order; none at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<Seen>> {
        let mut records = Vec::new();
        let Some(consumer) = &self.consumer else { return Ok(records) };
        let started = Instant::now();
        while !self.open.is_empty() && records.len() < BATCH_RECORDS_MAX {
            match tokio::time::timeout(ANSWER_WAIT, consumer.recv()).await {
                Ok(Ok(message)) => {
                    let Some(end) = self.open.get(&message.partition()).copied() else { continue };
                    if message.offset() < end {
                        records.push(seen(&message));
                    }
                    if message.offset() + 1 >= end {
                        self.open.remove(&message.partition());
                    }
                }
                Ok(Err(KafkaError::PartitionEOF(partition))) => {
                    self.open.remove(&partition);
                }
                Ok(Err(error)) if started.elapsed() > ANSWER_WAIT => {
                    return Err(error).with_context(|| format!("{} can not be read", self.topic));
                }
                // A connection that breaks is made again by itself.
                Ok(Err(_)) => {}
                Err(_) => bail!("{}: no record came for {ANSWER_WAIT:?}, though there are more", self.topic),
            }
        }
        Ok(records)
    }
}

/// What is remembered of a SHA-256.
pub(crate) fn digest(sha256: &[u8]) -> u32 {
    sha256.first_chunk().copied().map_or(0, u32::from_be_bytes)
}

fn seen(message: &BorrowedMessage<'_>) -> Seen {
    let header = |name: &str| {
        let found = message.headers()?.iter().filter(|header| header.key == name).last()?;
        std::str::from_utf8(found.value?).ok()
    };
    Seen {
        partition: message.partition(),
        offset: message.offset(),
        at_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().unwrap_or_default().to_vec(),
        digest: digest(&Sha256::digest(message.payload().unwrap_or_default())),
        id: header(CE_ID).and_then(|id| id.parse().ok()),
        kind: header(CE_TYPE).map(str::to_owned),
        sequence: header(CE_SEQUENCE).and_then(|sequence| sequence.parse().ok()),
        ours: header(CE_SOURCE).is_some_and(|source| source.starts_with(OUR_SOURCE)),
        dead_letter: header("dlq_id").and_then(|id| id.parse().ok()),
        hop: header("retry_hop").and_then(|hop| hop.parse().ok()),
    }
}
