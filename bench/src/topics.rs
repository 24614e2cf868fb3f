//! The topics of this run: their names, and reading one to its present end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::Offset;
use waybill_testkit::kafka_bootstrap;

/// Longest wait for one answer of the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time without any record while there must be more.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause of one poll that finds nothing.
const POLL: Duration = Duration::from_millis(100);

/// A consumer without a group: it is told where to read, and commits nothing.
///
/// # Errors
/// When librdkafka refuses its settings.
pub fn consumer() -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", kafka_bootstrap())
        .set("client.id", "waybill-bench")
        .set("group.id", "waybill-bench")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()
        .context("a consumer for KAFKA_BOOTSTRAP_SERVERS")
}

/// Every topic of this prefix.
///
/// # Errors
/// When the broker does not answer.
pub fn names(prefix: &str) -> Result<Vec<String>> {
    let metadata = consumer()?.fetch_metadata(None, BROKER_TIMEOUT).context("Kafka's topics")?;
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// The first offset and the one after the last of every partition.
///
/// # Errors
/// When the broker does not answer.
pub fn bounds(consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i32, i64, i64)>> {
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT).context("Kafka's metadata")?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    partitions
        .map(|partition| {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition.id(), BROKER_TIMEOUT)
                .with_context(|| format!("the ends of {topic}"))?;
            Ok((partition.id(), low, high))
        })
        .collect()
}

/// Records a topic holds.
///
/// # Errors
/// When the broker does not answer.
pub fn count(topic: &str) -> Result<i64> {
    Ok(bounds(&consumer()?, topic)?.iter().map(|(_, low, high)| high - low).sum())
}

/// Shows every record of a topic up to its present end, in order per partition.
///
/// # Errors
/// When the broker does not answer, or the topic ends before its end.
pub fn read_to_end(topic: &str, mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<()>) -> Result<()> {
    let consumer = consumer()?;
    let bounds = bounds(&consumer, topic)?;
    let mut left: i64 = bounds.iter().map(|(_, low, high)| high - low).sum();
    let mut assignment = TopicPartitionList::new();
    for (partition, low, high) in &bounds {
        if high > low {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*low)).context("an offset")?;
        }
    }
    consumer.assign(&assignment).context("assigning partitions")?;
    let mut heard = Instant::now();
    while left > 0 {
        let Some(polled) = consumer.poll(POLL) else {
            if heard.elapsed() > SILENCE_TIMEOUT {
                bail!("{topic}: {left} records did not come within {SILENCE_TIMEOUT:?}");
            }
            continue;
        };
        let message = polled.with_context(|| format!("reading {topic}"))?;
        heard = Instant::now();
        left -= 1;
        visit(&message)?;
    }
    Ok(())
}

/// A header's text.
#[must_use]
pub fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}
