//! How late messages are: from the moment their commit was asked for to the broker's append, by the clock of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Headers as _, Message, Timestamp};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;
use waybill_testkit::TestTopics;

use crate::setup::{PARTITIONS, SOON};

/// When the commit of each message was asked for.
#[derive(Clone, Default)]
pub(crate) struct Commits(Arc<Mutex<BTreeMap<String, SystemTime>>>);

impl Commits {
    pub(super) fn note(&self, messages: &[Uuid], at: SystemTime) {
        let mut commits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        commits.extend(messages.iter().map(|message| (message.to_string(), at)));
    }

    /// How late they were, once all of them are there.
    pub(super) async fn lags(&self, topics: &TestTopics, topic: &str) -> Lags {
        let commits = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let appended = appended(topics, topic, commits.keys().cloned().collect()).await;
        let since = |at: &SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let lag = |(message, at): (&String, &SystemTime)| appended[message].saturating_sub(since(at));
        let mut lags: Vec<Duration> = commits.iter().map(lag).collect();
        lags.sort_unstable();
        Lags(lags)
    }
}

/// Sorted.
pub(super) struct Lags(Vec<Duration>);

impl Lags {
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

impl fmt::Display for Lags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, late, latest] =
            [50, 99, 100].map(|percent| self.percentile(percent).as_secs_f64() * 1e3);
        write!(f, "{} messages, p50 {median:.0} ms, p99 {late:.0} ms, longest {latest:.0} ms", self.0.len())
    }
}

/// From now on the topic's records show when the broker appended them.
pub(super) async fn time_appends(topics: &TestTopics, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &topics.bootstrap).create().unwrap();
    let topic = topics.full(topic);
    let timed =
        AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("message.timestamp.type", "LogAppendTime");
    for altered in admin.alter_configs(&[timed], &AdminOptions::new()).await.unwrap() {
        altered.unwrap();
    }
}

/// When the first record of each of these messages was appended, since 1970.
async fn appended(
    topics: &TestTopics,
    topic: &str,
    mut missing: BTreeSet<String>,
) -> BTreeMap<String, Duration> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &topics.bootstrap)
        .set("group.id", "lag")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(&topics.full(topic), partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let mut appended = BTreeMap::new();
    let started = Instant::now();
    while !missing.is_empty() {
        let left = SOON.saturating_sub(started.elapsed());
        let received = tokio::time::timeout(left, consumer.recv()).await;
        let record = received.unwrap_or_else(|_| panic!("{} messages are not there", missing.len())).unwrap();
        let mut headers = record.headers().into_iter().flat_map(|headers| headers.iter());
        let id = headers.find(|header| header.key == "ce_id").and_then(|header| header.value);
        let id = String::from_utf8_lossy(id.unwrap_or_default()).into_owned();
        if missing.remove(&id) {
            let Timestamp::LogAppendTime(millis) = record.timestamp() else {
                panic!("not the broker's time")
            };
            appended.insert(id, Duration::from_millis(u64::try_from(millis).unwrap()));
        }
    }
    appended
}
