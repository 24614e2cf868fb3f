//! librdkafka's settings: those that order and completeness rest on are fixed, the rest is free.

use std::collections::BTreeMap;

use rdkafka::config::ClientConfig;
use waybill_messaging::config::producer;
use waybill_messaging::security::Security;
use waybill_runtime::config::Environment;

use super::Tuning;

/// The variable for any other property.
const VARIABLE: &str = "OUTBOX_RELAY_KAFKA_PROPERTIES";
/// What order and completeness rest on; not to be set otherwise.
const FIXED: [&str; 11] = [
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
    // Each row's partition is chosen by that hash (`Producer::destination`).
    "partitioner",
    // Of an acknowledgement nothing would be heard.
    "delivery.report.only.error",
];
/// How long librdkafka waits for a topic to appear before it fails its rows. A topic is looked for before its first
/// row is handed over, so this counts only for one that is deleted while rows are on their way.
const TOPIC_WAIT_MS: u32 = 5_000;

/// Reads them. The producer's queue has room for all that may be on its way and a piece more.
pub(super) fn read(
    env: &mut Environment,
    properties: &BTreeMap<String, String>,
    tuning: &Tuning,
) -> ClientConfig {
    let bootstrap = env.text("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092");
    let compression = env.text("OUTBOX_RELAY_COMPRESSION", "none");
    if !["none", "gzip", "snappy", "lz4", "zstd"].contains(&compression.as_str()) {
        env.mistake(
            "OUTBOX_RELAY_COMPRESSION",
            format!("{compression:?} is unknown: write none, gzip, snappy, lz4 or zstd"),
        );
    }
    let linger_ms = env.parsed_in("OUTBOX_RELAY_LINGER_MS", 0_u32, 0..=1_000);
    let queue_rows = (tuning.in_flight.rows_max + tuning.piece.rows_max as usize).min(10_000_000);
    // librdkafka counts its own overhead per row too: twice the bytes and half a KiB a row.
    let queue_kib =
        (tuning.in_flight.bytes_max + tuning.piece.bytes_max as usize) / 512 + queue_rows / 2 + 2_048;
    let mut config = producer(&bootstrap, "outbox-relay");
    config
        .set("compression.codec", &compression)
        .set("linger.ms", linger_ms.to_string())
        // A batch that fails for good ends the producer, instead of being passed by its successors.
        .set("enable.gapless.guarantee", "true")
        .set("queue.buffering.max.messages", queue_rows.to_string())
        .set("queue.buffering.max.kbytes", queue_kib.min(2_097_151).to_string())
        .set("topic.metadata.propagation.max.ms", TOPIC_WAIT_MS.to_string());
    Security::read(env).apply(&mut config);
    let mut all = properties.clone();
    all.extend(from_variable(env));
    for (name, value) in all {
        if FIXED.contains(&name.as_str()) {
            env.mistake(VARIABLE, format!("{name} is fixed: order and completeness rest on it"));
        } else {
            config.set(name, value);
        }
    }
    if let Err(error) = config.create_native_config() {
        env.mistake(VARIABLE, format!("librdkafka does not accept the settings: {error}"));
    }
    config
}

fn from_variable(env: &mut Environment) -> BTreeMap<String, String> {
    let Some(list) = env.optional(VARIABLE) else { return BTreeMap::new() };
    let mut properties = BTreeMap::new();
    for part in list.split([';', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((name, value)) => {
                properties.insert(name.trim().to_owned(), value.trim().to_owned());
            }
            None => {
                let name = part.split_whitespace().next().unwrap_or_default();
                env.mistake(
                    VARIABLE,
                    format!("{name:?} has no value: write property=value, separated by ';'"),
                );
            }
        }
    }
    properties
}
