//! The settings of librdkafka, in one place, each with its reason. What is not named here stays at librdkafka's default.

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::security::Security;

/// A member that is silent this long is dropped from its group. A killed process's partitions stand still that long,
/// so it is the broker's usual minimum (`group.min.session.timeout.ms`); heartbeats come from a thread of their own.
pub const SESSION_TIMEOUT_MS: u32 = 6_000;
/// A third of [`SESSION_TIMEOUT_MS`], as Kafka advises: two may get lost.
pub const HEARTBEAT_INTERVAL_MS: u32 = 2_000;
/// A member that does not poll this long is dropped, and a rebalance waits at most this long for a busy one, unless its
/// consumer says otherwise. Far above any batch (every statement is limited to ten seconds), far below the default of five
/// minutes.
pub const MAX_POLL_INTERVAL_MS: u32 = 120_000;
/// How often stored offsets are committed: what a killed process repeats is at most this much work, all duplicates.
pub const AUTO_COMMIT_INTERVAL_MS: u32 = 1_000;
/// How often librdkafka tells its statistics, the source of `consumer_lag_records`.
pub const STATISTICS_INTERVAL_MS: u32 = 5_000;

/// For a group member whose offsets are stored by hand after the effects are committed. `max_poll_interval` is at least
/// [`SESSION_TIMEOUT_MS`].
#[must_use]
pub fn consumer(bootstrap: &str, group: &str, client_id: &str, max_poll_interval: Duration) -> ClientConfig {
    let mut config = common(bootstrap, client_id);
    config
        .set("group.id", group)
        // Offsets: librdkafka's own store-before-hand-over would skip what a crash interrupted.
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", AUTO_COMMIT_INTERVAL_MS.to_string())
        // A group without offsets starts at the beginning: the default, latest, would skip what was sent before.
        .set("auto.offset.reset", "earliest")
        // Eager: on a rebalance everything is given back, so that nothing is buffered for a partition somebody else has.
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", SESSION_TIMEOUT_MS.to_string())
        .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS.to_string())
        .set("max.poll.interval.ms", max_poll_interval.as_millis().to_string())
        .set("allow.auto.create.topics", "false")
        // Ten batches are fetched ahead and no more: the default of 64 MiB is memory for nothing.
        .set("queued.min.messages", "5000")
        .set("queued.max.messages.kbytes", "16384")
        // With a small queue the default pause of a second after it was full would starve a fast consumer.
        .set("fetch.queue.backoff.ms", "50")
        .set("fetch.error.backoff.ms", "200")
        // A partition or topic made later is found within this time.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS.to_string());
    config
}

/// For a producer that keeps each key's order and loses nothing: idempotent, all in-sync replicas, the Java client's
/// partitioner. Use it with delivery callbacks; a record is never given up by time, the caller decides.
#[must_use]
pub fn producer(bootstrap: &str, client_id: &str) -> ClientConfig {
    let mut config = common(bootstrap, client_id);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        // The default, CRC32, would put a key elsewhere than every Java client does.
        .set("partitioner", "murmur2_random")
        // No timeout: a timed-out record may be in the log all the same, and its successors would pass it.
        .set("message.timeout.ms", "0")
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "65536")
        // Above anything the outbox accepts (payload, headers and key together stay below 1,083,000 bytes).
        .set("message.max.bytes", "1114112")
        // A batch of several stays below the `max.message.bytes` of a topic that does not take the largest.
        .set("batch.size", "1000000")
        .set("allow.auto.create.topics", "false");
    config
}

/// For administration: topics are listed, made and compared.
#[must_use]
pub fn admin(bootstrap: &str, client_id: &str) -> ClientConfig {
    common(bootstrap, client_id)
}

fn common(bootstrap: &str, client_id: &str) -> ClientConfig {
    // Before librdkafka does it, and without OpenSSL's clean-up when the process exits: librdkafka's threads are not
    // waited for at an exit, and one that was in a handshake then read what was freed (SIGSEGV in place of exit code 0).
    openssl_sys::init();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", client_id)
        .set("socket.keepalive.enable", "true")
        // Small requests wait for nothing.
        .set("socket.nagle.disable", "true")
        // A broker that hangs is given up after this time instead of a minute.
        .set("socket.timeout.ms", "20000")
        // After an outage the broker is found again within seconds; the default backs off to ten.
        .set("reconnect.backoff.max.ms", "2000")
        // Idle connections are closed by the broker every ten minutes; that is no news.
        .set("log.connection.close", "false")
        // librdkafka's lines go through its client's context to `tracing`, which filters.
        .set_log_level(RDKafkaLogLevel::Info);
    Security::apply_installed(&mut config);
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::{BaseProducer, DefaultProducerContext};

    #[test]
    fn librdkafka_knows_every_setting() {
        let interval = Duration::from_millis(SESSION_TIMEOUT_MS.into());
        consumer("127.0.0.1:1", "group", "test", interval).create::<BaseConsumer>().unwrap();
        producer("127.0.0.1:1", "test").create::<BaseProducer<DefaultProducerContext>>().unwrap();
        admin("127.0.0.1:1", "test").create::<BaseConsumer>().unwrap();
    }
}
