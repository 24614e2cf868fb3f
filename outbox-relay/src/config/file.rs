//! The optional TOML file: the same settings as the environment's, by shorter names, and databases as a list.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// The file's shape; an unknown key is a mistake.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    http_addr: Option<String>,
    owner: Option<String>,
    log_format: Option<String>,
    shutdown_timeout_ms: Option<u64>,
    pub(super) kafka: Kafka,
    tuning: Tuning,
    pub(super) databases: Vec<DatabaseEntry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Kafka {
    bootstrap_servers: Option<String>,
    compression: Option<String>,
    linger_ms: Option<u64>,
    /// Any other librdkafka property.
    pub(super) properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tuning {
    piece_rows_max: Option<u64>,
    piece_bytes_max: Option<u64>,
    in_flight_rows_max: Option<u64>,
    in_flight_bytes_max: Option<u64>,
    poll_idle_ms_max: Option<u64>,
    poll_busy_pause_ms: Option<u64>,
    lease_ms: Option<u64>,
    position_interval_ms: Option<u64>,
    statement_timeout_ms: Option<u64>,
}

/// One database.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabaseEntry {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) relay: Option<String>,
}

impl std::fmt::Debug for DatabaseEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{} can not be read: {error}", path.display()))?;
        // The parser's message quotes the line, which may hold a password: its first line says where and what.
        toml::from_str(&text).map_err(|error| format!("{}: {}", path.display(), error.message()))
    }

    /// The file's settings by their names in the environment.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let number = |value: &Option<u64>| value.map(|value| value.to_string());
        let tuning = &self.tuning;
        let all = [
            ("WAYBILL_HTTP_ADDR", self.http_addr.clone()),
            ("OUTBOX_RELAY_OWNER", self.owner.clone()),
            ("WAYBILL_LOG_FORMAT", self.log_format.clone()),
            ("WAYBILL_SHUTDOWN_TIMEOUT_MS", number(&self.shutdown_timeout_ms)),
            ("KAFKA_BOOTSTRAP_SERVERS", self.kafka.bootstrap_servers.clone()),
            ("OUTBOX_RELAY_COMPRESSION", self.kafka.compression.clone()),
            ("OUTBOX_RELAY_LINGER_MS", number(&self.kafka.linger_ms)),
            ("OUTBOX_RELAY_PIECE_ROWS_MAX", number(&tuning.piece_rows_max)),
            ("OUTBOX_RELAY_PIECE_BYTES_MAX", number(&tuning.piece_bytes_max)),
            ("OUTBOX_RELAY_IN_FLIGHT_ROWS_MAX", number(&tuning.in_flight_rows_max)),
            ("OUTBOX_RELAY_IN_FLIGHT_BYTES_MAX", number(&tuning.in_flight_bytes_max)),
            ("OUTBOX_RELAY_POLL_IDLE_MS_MAX", number(&tuning.poll_idle_ms_max)),
            ("OUTBOX_RELAY_POLL_BUSY_PAUSE_MS", number(&tuning.poll_busy_pause_ms)),
            ("OUTBOX_RELAY_LEASE_MS", number(&tuning.lease_ms)),
            ("OUTBOX_RELAY_POSITION_INTERVAL_MS", number(&tuning.position_interval_ms)),
            ("OUTBOX_RELAY_STATEMENT_TIMEOUT_MS", number(&tuning.statement_timeout_ms)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}
