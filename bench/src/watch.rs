//! Sees orders end the way a customer of the events does: by reading topics from where they are now.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;
use uuid::Uuid;

use crate::journal::now_us;
use crate::topics;

/// How often the reading thread looks whether it is to end.
const POLL: Duration = Duration::from_millis(50);

/// One event of an order.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its `ce_type`.
    pub kind: String,
    /// The order, which is its key.
    pub order: Uuid,
    /// When it was read, in microseconds since 1970.
    pub at_us: i64,
}

/// A reading thread; ends with this value.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to read these topics at their present ends; events that come after this call are told to `on_event`, from
    /// another thread.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn begin(names: Vec<String>, on_event: impl Fn(Seen) + Send + 'static) -> Result<Self> {
        let consumer =
            tokio::task::spawn_blocking(move || at_the_end(&names)).await.context("watching topics")??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A broker's hiccup mends itself; an event that never comes is the wait's own time limit.
                let Some(Ok(message)) = consumer.poll(POLL) else { continue };
                let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
                let order = key.and_then(|key| key.parse().ok());
                if let (Some(order), Some(kind)) = (order, topics::header(&message, "ce_type")) {
                    on_event(Seen { kind: kind.to_owned(), order, at_us: now_us() });
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn at_the_end(names: &[String]) -> Result<BaseConsumer> {
    let consumer = topics::consumer()?;
    let mut assignment = TopicPartitionList::new();
    for name in names {
        // Not "the end": that would be wherever it is when the first fetch comes.
        for (partition, _, high) in topics::bounds(&consumer, name)? {
            assignment.add_partition_offset(name, partition, Offset::Offset(high)).context("an offset")?;
        }
    }
    consumer.assign(&assignment).context("assigning partitions")?;
    Ok(consumer)
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within one poll; a panic of it was told on standard error.
            let _ = thread.join();
        }
    }
}
