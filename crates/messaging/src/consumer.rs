//! A consumer group's member: records in batches to a handler, offsets only after the handler's commit.
//!
//! One thread owns the Kafka client. It polls a batch, waits until the handler is done with it (the handler itself runs
//! on the caller's tokio runtime), stores the offsets, and polls again; librdkafka fetches ahead meanwhile. So whenever
//! the group is rebalanced, which happens inside a poll, no batch is in the handler: stored offsets are committed
//! and what was only buffered is forgotten, without a lock or a race.
//!
//! | what happens | what the member does |
//! |---|---|
//! | the handler is done | offsets stored; committed within a second, at a revoke and at the end |
//! | the handler answers [`BatchError`] | partitions paused, polling goes on, the same batch again after a back-off |
//! | the handler answers nothing for `batch_time_max` | its future is dropped, and it goes on as after a [`BatchError`] |
//! | the process dies before the offsets are committed | the records come again: handlers drop what they know (inbox) |
//! | a record is not due ([`ConsumerConfig::due`]) | its partition paused until it is; others and polling go on |
//! | partitions are revoked | stored offsets committed at once, records buffered for them dropped |
//! | shutdown | the batch in hand is finished, offsets committed, the group left; all within `close_timeout` |
//! | Kafka is away | librdkafka reconnects for ever; [`ConsumerStatus`] tells `/ready`; shutdown stays bounded |
//!
//! Partitions are assigned eagerly by range: members get the same partition numbers of all topics of the group, so
//! that topics with equal partition counts and equal keys (an order's replies from several services) meet in one member.

mod context;
mod drive;
mod metrics;
mod offsets;
mod settings;
mod status;
mod waiting;

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use waybill_runtime::lifecycle::Shutdown;

pub use self::settings::{ConsumerConfig, Due};
pub use self::status::ConsumerStatus;
use crate::record::Record;

/// Records polled together, in arrival order per partition. Never empty when handed over.
#[derive(Debug)]
pub struct Batch {
    /// The records, undecoded.
    pub records: Vec<Record>,
}

/// What a group does with its records.
pub trait BatchHandler: Send + Sync + 'static {
    /// Makes the effects of every record of the batch, durably, before it answers `Ok`: the offsets are stored next.
    /// A batch may come again, whole or in part, and must then have no further effect.
    ///
    /// The future may be dropped anywhere: nothing half done may be left in what it borrowed.
    ///
    /// # Errors
    /// [`BatchError`] when it could not be done now and trying again later will do, never for a fault of a record.
    /// A panic counts as one.
    fn handle(&self, batch: &Batch) -> impl Future<Output = Result<(), BatchError>> + Send;
}

/// The infrastructure kept a batch from being handled; the same batch is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BatchError(pub Box<dyn Error + Send + Sync>);

impl BatchError {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// A batch was in the handler for longer than [`ConsumerConfig::batch_time_max`]: its future was dropped. Inside a
/// [`BatchError`].
#[derive(Debug, thiserror::Error)]
#[error("the batch was not handled within {} ms: the handler waits for what does not answer", limit.as_millis())]
pub struct BatchTimedOut {
    /// How long it could take.
    pub limit: Duration,
}

/// Why a consumer ended on its own. The process should end too and be started again.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The configuration can not work.
    #[error("the consumer's configuration is not usable: {0}")]
    Config(&'static str),
    /// librdkafka refused the configuration.
    #[error("the consumer of group {group} could not be made")]
    Create {
        /// The group, with prefix.
        group: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// The thread could not be started.
    #[error("the consumer's thread could not be started")]
    Thread(#[source] std::io::Error),
    /// librdkafka can not go on with this client.
    #[error("the consumer of group {group} failed for good")]
    Fatal {
        /// The group, with prefix.
        group: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// The thread panicked.
    #[error("the consumer's thread of group {group} panicked; the panic is in the log")]
    Panicked {
        /// The group, with prefix.
        group: String,
    },
}

/// Consumes until the shutdown is requested. At least once, in order per partition, offsets after effects.
///
/// Returns within `close_timeout` of the request, also when Kafka or the handler hangs: the thread is then left behind,
/// with a warning, and ends with the process. Dropping the future stops the thread likewise.
///
/// # Errors
/// [`ConsumerError`] when it can not start or can not go on; never because Kafka is away.
pub async fn run<H: BatchHandler>(
    config: ConsumerConfig,
    handler: H,
    shutdown: Shutdown,
) -> Result<(), ConsumerError> {
    config.check().map_err(ConsumerError::Config)?;
    let (group, close_timeout) = (config.group.clone(), config.close_timeout);
    let stop = StopOnDrop(Arc::default());
    let stopped = Arc::clone(&stop.0);
    let (ended, mut end) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("kafka-consumer".to_owned())
        .spawn(move || {
            // Nobody listens when the future was dropped.
            let _ = ended.send(drive::drive(&config, Arc::new(handler), &runtime, &stopped));
        })
        .map_err(ConsumerError::Thread)?;
    let answer = tokio::select! {
        answer = &mut end => answer,
        () = shutdown.requested() => {
            stop.stop();
            match tokio::time::timeout(close_timeout, end).await {
                Ok(answer) => answer,
                Err(_) => {
                    let timeout_ms = close_timeout.as_millis();
                    tracing::warn!(group, timeout_ms, "the consumer did not close in time and is left behind");
                    return Ok(());
                }
            }
        }
    };
    answer.unwrap_or(Err(ConsumerError::Panicked { group }))
}

/// Tells the thread to stop, at the latest when the future that waits for it is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stop();
    }
}
