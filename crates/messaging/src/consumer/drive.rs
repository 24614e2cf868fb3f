//! The consumer's thread: poll a batch, have it handled, store its offsets; the only place that touches the client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::runtime::Handle;
use waybill_runtime::planted::{Bug, is_planted};
use waybill_runtime::retry::Backoff;

use super::context::Context;
use super::metrics::Metrics;
use super::offsets::next_offsets;
use super::waiting::Waiting;
use super::{Batch, BatchError, BatchHandler, BatchTimedOut, ConsumerConfig, ConsumerError};
use crate::record::Record;
use crate::{config, headers};

/// How long a poll waits for a record: a stop is seen within this time.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// A batch of at least this many records says that there is load; the next one waits for more, since a transaction
/// costs the same for one record as for many. Below it, waiting would only cost latency.
const BUSY_RECORDS_MIN: usize = 16;

/// Runs until `stop` is set; then finishes the batch in hand, commits and leaves the group.
pub(super) fn drive<H: BatchHandler>(
    config: &ConsumerConfig,
    handler: Arc<H>,
    runtime: &Handle,
    stop: &AtomicBool,
) -> Result<(), ConsumerError> {
    let metrics = Metrics::new(&config.group);
    let context = Context::new(&config.group, config.status.clone(), metrics.clone());
    let create = |source| ConsumerError::Create { group: config.group.clone(), source };
    let consumer: BaseConsumer<Context> =
        config::consumer(&config.bootstrap, &config.group, &config.client_id, config.max_poll_interval)
            .create_with_context(context)
            .map_err(create)?;
    let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(create)?;
    tracing::info!(group = config.group, topics = ?config.topics, "consuming");
    let (early, waiting) = (VecDeque::new(), Waiting::new(config.due.clone()));
    let mut drive = Drive { config, handler, runtime, stop, metrics, consumer, early, waiting, busy: false };
    let result = drive.until_stopped();
    // Dropping the client closes it: partitions are revoked, which commits, and the group is left.
    drop(drive);
    tracing::info!(group = config.group, "stopped consuming");
    result
}

struct Drive<'a, H> {
    config: &'a ConsumerConfig,
    handler: Arc<H>,
    runtime: &'a Handle,
    stop: &'a AtomicBool,
    metrics: Metrics,
    consumer: BaseConsumer<Context>,
    /// Records that were already on their way when their partition was paused. A pause empties librdkafka's queues, so
    /// these are few.
    early: VecDeque<Record>,
    /// Records that are not due; their partitions are paused.
    waiting: Waiting,
    busy: bool,
}

impl<H: BatchHandler> Drive<'_, H> {
    fn until_stopped(&mut self) -> Result<(), ConsumerError> {
        while !self.stopping() {
            let records = self.collect()?;
            self.busy = records.len() >= BUSY_RECORDS_MIN;
            if !records.is_empty() {
                self.deliver(Batch { records })?;
            }
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The next batch; empty when nothing came for a while.
    fn collect(&mut self) -> Result<Vec<Record>, ConsumerError> {
        let mut records = self.release_due();
        for record in std::mem::take(&mut self.early) {
            records.extend(self.when_due(record));
        }
        if records.is_empty() {
            let polled = self.poll(POLL_WAIT, &mut Vec::new())?;
            records.extend(polled.and_then(|record| self.when_due(record)));
        }
        let mut bytes: usize = records.iter().map(Record::bytes).sum();
        let full_at = Instant::now() + self.config.batch_wait_max;
        while !records.is_empty()
            && records.len() < self.config.batch_records_max
            && bytes < self.config.batch_bytes_max
        {
            let wait =
                if self.busy { full_at.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.poll(wait, &mut records)? {
                Some(record) => {
                    if let Some(record) = self.when_due(record) {
                        bytes += record.bytes();
                        records.push(record);
                    }
                }
                None if wait.is_zero() => break,
                None => {}
            }
        }
        Ok(records)
    }

    /// One poll. Rebalances happen in here: what was buffered for partitions taken away is dropped from `held`.
    fn poll(&mut self, wait: Duration, held: &mut Vec<Record>) -> Result<Option<Record>, ConsumerError> {
        let polled = match self.consumer.poll(wait) {
            Some(Ok(message)) => Some(Record::of(&message)),
            Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                return Err(ConsumerError::Fatal { group: self.config.group.clone(), source });
            }
            // Told and logged by the context, mended by librdkafka.
            Some(Err(_)) | None => None,
        };
        self.config.status.polled();
        let revoked = self.consumer.context().take_revoked();
        if !revoked.is_empty() {
            let kept = |r: &Record| !revoked.iter().any(|(t, p)| *t == r.topic && *p == r.partition);
            held.retain(kept);
            self.early.retain(kept);
            self.waiting.forget(&revoked);
        }
        Ok(polled)
    }

    /// The record, when it may be handled now; else it waits, and its partition is paused.
    fn when_due(&mut self, record: Record) -> Option<Record> {
        let place = (record.topic.clone(), record.partition);
        let is_first = !self.waiting.waits(&place);
        let due = self.waiting.admit(record);
        if due.is_none() && is_first {
            self.apply("paused", [&place], |consumer, list| consumer.pause(list));
        }
        due
    }

    /// Records whose time has come; a partition none of whose records waits any more goes on.
    fn release_due(&mut self) -> Vec<Record> {
        let (records, free) = self.waiting.release();
        if !free.is_empty() {
            self.apply("resumed", &free, |consumer, list| consumer.resume(list));
        }
        records
    }

    /// Has the batch handled, again and again while the infrastructure fails, and stores its offsets.
    /// Returns early, with nothing stored, when the shutdown or a rebalance takes the batch away.
    fn deliver(&mut self, mut batch: Batch) -> Result<(), ConsumerError> {
        let mut backoff = Backoff::new(self.config.retry_wait_first, self.config.retry_wait_max);
        let mut paused = false;
        if is_planted(Bug::OffsetStoredEarly) {
            self.store(&batch.records);
        }
        loop {
            let shared = Arc::new(batch);
            let started = Instant::now();
            let Err(error) = self.handle(&shared) else {
                self.metrics.handled(&shared.records, started.elapsed());
                self.store(&shared.records);
                break;
            };
            // A handler that panicked may hold its share a moment longer; records are cheap to copy.
            batch = Arc::try_unwrap(shared).unwrap_or_else(|held| Batch { records: held.records.clone() });
            let wait = backoff.next_wait();
            self.tell_failure(&batch, &error, wait);
            if wait <= POLL_WAIT {
                // Too short to be missed by the group; a pause would throw away what is fetched ahead.
                std::thread::sleep(wait);
            } else {
                paused = paused || self.pause();
                self.wait_polling(wait, &mut batch.records)?;
            }
            if batch.records.is_empty() || self.stopping() {
                break;
            }
        }
        self.config.status.working();
        if paused {
            self.resume();
        }
        Ok(())
    }

    /// Runs the handler on the runtime and waits for it. This thread does not poll meanwhile: so no rebalance can happen
    /// while a batch is in the handler. Every statement the handler makes is bounded by the server; that there is a server
    /// is bounded here.
    fn handle(&self, batch: &Arc<Batch>) -> Result<(), BatchError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let (handler, shared) = (Arc::clone(&self.handler), Arc::clone(batch));
        let limit = self.config.batch_time_max;
        self.runtime.spawn(async move {
            // The handler's future is gone with this statement, and only then the answer is given.
            let result = tokio::time::timeout(limit, handler.handle(&shared)).await;
            drop(shared);
            // The receiver waits below.
            let _ = answer.send(result.unwrap_or_else(|_| Err(BatchError::new(BatchTimedOut { limit }))));
        });
        answered
            .recv()
            .unwrap_or_else(|_| Err(BatchError::new("the handler panicked, or its runtime is gone")))
    }

    fn store(&self, records: &[Record]) {
        match next_offsets(records).and_then(|offsets| self.consumer.store_offsets(&offsets)) {
            Ok(()) => {}
            // The partition went to another member between two polls: the other one reads from what was committed.
            Err(KafkaError::StoreOffset(RDKafkaErrorCode::State)) => {
                tracing::debug!(group = self.config.group, "offsets of revoked partitions were not stored");
            }
            Err(error) => tracing::warn!(group = self.config.group, %error, "offsets were not stored"),
        }
    }

    fn tell_failure(&self, batch: &Batch, error: &BatchError, wait: Duration) {
        self.metrics.retries.inc();
        if error.0.is::<BatchTimedOut>() {
            self.metrics.timeouts.inc();
        }
        self.config.status.failing(error.to_string());
        let (trace_id, correlation_id) = batch.records.first().map(headers::ids_for_logs).unwrap_or_default();
        let cause = error.0.as_ref() as &dyn std::error::Error;
        tracing::warn!(
            group = self.config.group,
            trace_id,
            correlation_id,
            records = batch.records.len(),
            error = cause,
            wait_ms = wait.as_millis() as u64,
            "a batch could not be handled and is tried again"
        );
    }

    /// Polls until the time is over, so that the member stays in its group; `held` loses what a rebalance takes.
    fn wait_polling(&mut self, wait: Duration, held: &mut Vec<Record>) -> Result<(), ConsumerError> {
        let until = Instant::now() + wait;
        while !held.is_empty() && !self.stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let early = self.poll(left.min(POLL_WAIT), held)?;
            self.early.extend(early);
        }
        Ok(())
    }

    fn pause(&self) -> bool {
        let paused = self.consumer.assignment().and_then(|all| self.consumer.pause(&all));
        if let Err(error) = &paused {
            tracing::warn!(group = self.config.group, %error, "partitions could not be paused");
        }
        paused.is_ok()
    }

    fn resume(&self) {
        if let Err(error) = self.consumer.assignment().and_then(|all| self.consumer.resume(&all)) {
            tracing::warn!(group = self.config.group, %error, "partitions could not be resumed");
        }
        if !self.waiting.is_empty() {
            self.apply("paused", self.waiting.places(), |consumer, list| consumer.pause(list));
        }
    }

    /// Pauses or resumes some partitions. A failure is only told: what comes too early waits in memory all the same.
    fn apply<'p>(
        &self,
        what: &'static str,
        places: impl IntoIterator<Item = &'p (String, i32)>,
        act: impl FnOnce(&BaseConsumer<Context>, &TopicPartitionList) -> KafkaResult<()>,
    ) {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places {
            list.add_partition(topic, *partition);
        }
        if let Err(error) = act(&self.consumer, &list) {
            tracing::warn!(group = self.config.group, %error, "partitions could not be {what}");
        }
    }
}
