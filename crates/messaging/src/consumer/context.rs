//! What librdkafka calls back: rebalances, errors, statistics and log lines.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::ConsumerStatus;
use super::metrics::Metrics;

/// The state of a broker connection that works, in librdkafka's statistics.
const BROKER_UP: &str = "UP";

/// Shared between the thread that polls and the callbacks made inside its polls.
#[derive(Clone)]
pub(super) struct Context {
    group: String,
    status: ConsumerStatus,
    metrics: Metrics,
    revoked: Arc<Mutex<Vec<(String, i32)>>>,
}

impl Context {
    pub(super) fn new(group: &str, status: ConsumerStatus, metrics: Metrics) -> Self {
        Self { group: group.to_owned(), status, metrics, revoked: Arc::default() }
    }

    /// The partitions taken away since it was asked last.
    pub(super) fn take_revoked(&self) -> Vec<(String, i32)> {
        std::mem::take(&mut *self.revoked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn on_revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        // When the group threw this member out, a commit would only be refused.
        if !consumer.assignment_lost() {
            match consumer.commit_consumer_state(CommitMode::Sync) {
                Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
                Err(error) => tracing::warn!(
                    group = self.group, %error,
                    "offsets were not committed before a rebalance: their records come again as duplicates"
                ),
            }
        }
        let revoked = owned(partitions);
        tracing::info!(group = self.group, partitions = revoked.len(), "partitions revoked");
        for (topic, partition) in &revoked {
            self.metrics.lag_forget(topic, *partition);
        }
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).extend(revoked);
        self.status.revoked();
    }

    fn on_assigned(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        // A pause outlives an assignment inside librdkafka; ours does not.
        if let Err(error) = consumer.resume(partitions) {
            tracing::warn!(group = self.group, %error, "newly assigned partitions could not be resumed");
        }
        tracing::info!(group = self.group, partitions = partitions.count(), "partitions assigned");
        self.metrics.assignments.inc();
        self.status.assigned(partitions.count());
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(partitions) => self.on_revoke(consumer, partitions),
            Rebalance::Error(error) => tracing::error!(group = self.group, %error, "a rebalance failed"),
            Rebalance::Assign(_) => {}
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            self.on_assigned(consumer, partitions);
        }
    }

    fn commit_callback(&self, result: Result<(), KafkaError>, _: &TopicPartitionList) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                tracing::warn!(group = self.group, %error, "offsets were not committed; the next commit covers them")
            }
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", group = self.group, facility, "{line}")
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", group = self.group, facility, "{line}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", group = self.group, facility, "{line}")
            }
        }
    }

    /// Errors that librdkafka mends itself; a fatal one is also returned by the poll, and ends the consumer there.
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.status.brokers_down(reason),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => self.status.topic_missing(reason),
            _ => {}
        }
        tracing::warn!(group = self.group, %error, reason, "Kafka client error");
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == BROKER_UP) {
            self.status.broker_up();
        }
        for (topic, partitions) in &statistics.topics {
            for partition in partitions.partitions.values().filter(|p| p.desired && p.partition >= 0) {
                if let Some(lag) = lag_of(partition) {
                    self.metrics.lag(topic, partition.partition, lag);
                }
            }
        }
    }
}

/// Records not handled yet: behind the last stored offset, or the last committed one before the first store; a group
/// that never committed has the whole partition before it. `None` while the broker has not told the partition's end.
fn lag_of(partition: &Partition) -> Option<i64> {
    let known = [partition.stored_offset, partition.committed_offset, partition.lo_offset];
    let next = known.into_iter().find(|offset| *offset >= 0)?;
    (partition.hi_offset >= 0).then(|| (partition.hi_offset - next).max(0))
}

fn owned(partitions: &TopicPartitionList) -> Vec<(String, i32)> {
    partitions.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect()
}
