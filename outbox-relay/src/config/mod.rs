//! Settings: environment variables over an optional TOML file; every mistake is named at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use sqlx::postgres::PgConnectOptions;
use waybill_runtime::config::{
    ConfigError, Environment, read_http_addr, read_log_format, read_shutdown_timeout,
};
use waybill_telemetry::logs;

use crate::core::flight::Limits;
use crate::store::{Bounds, SESSION};

mod databases;
mod file;
mod kafka;
mod source;

pub use databases::Database;
pub use source::Source;

/// Where the relay listens unless told otherwise.
const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:9100";

/// Everything the relay is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listener of `/health`, `/ready`, `/metrics`.
    pub http_addr: SocketAddr,
    /// `json` or `pretty`.
    pub log_format: String,
    /// `RUST_LOG`.
    pub log_filter: String,
    /// How long a signalled process may drain.
    pub shutdown_timeout: Duration,
    /// This process's name in the lease; unique, because a random part is always added.
    pub owner: String,
    /// librdkafka's settings for each producer.
    pub kafka: ClientConfig,
    /// The databases to serve.
    pub databases: Vec<Database>,
    /// Sizes and times.
    pub tuning: Tuning,
}

/// Sizes and times; the defaults suit most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Bounds of one read.
    pub piece: Bounds,
    /// Bounds of what waits for acknowledgements.
    pub in_flight: Limits,
    /// Longest pause between two polls that find nothing.
    pub poll_idle_max: Duration,
    /// Longest pause after a poll that found rows; it follows how long the poll took.
    pub poll_busy_pause: Duration,
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How often the position is stored while rows are published, at most.
    pub position_interval: Duration,
    /// Bound of each range when a large backlog is measured; other reads have ten seconds at most.
    pub statement_timeout: Duration,
}

/// Pieces on their way at once: with small rounds at a high rate each is a piece; the rows and bytes bound the rest.
const PIECES_IN_FLIGHT_MAX: usize = 256;

impl Config {
    /// Reads the environment, and the file that `OUTBOX_RELAY_CONFIG` (or `file`) names.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn read(
        variables: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let (variables, path) = Source::new(variables, file).into_parts();
        let (from_file, mistake) = match path.map(|path| file::File::read(&path)) {
            None => (file::File::default(), None),
            Some(Ok(from_file)) => (from_file, None),
            Some(Err(mistake)) => (file::File::default(), Some(mistake)),
        };
        // The environment's values come later and win.
        let mut env = Environment::from_map(from_file.variables().into_iter().chain(variables));
        if let Some(mistake) = mistake {
            env.mistake(source::FILE_VARIABLE, mistake);
        }
        let config = Self {
            http_addr: read_http_addr(&mut env, HTTP_ADDR_DEFAULT),
            log_format: read_log_format(&mut env),
            log_filter: env.text("RUST_LOG", "info"),
            shutdown_timeout: read_shutdown_timeout(&mut env),
            owner: read_owner(&mut env),
            databases: databases::read(&mut env, &from_file.databases),
            tuning: read_tuning(&mut env),
            kafka: ClientConfig::new(),
        };
        if let Some(mistake) = logs::filter_mistake(&config.log_filter) {
            env.mistake("RUST_LOG", mistake);
        }
        let kafka = kafka::read(&mut env, &from_file.kafka.properties, &config.tuning);
        env.finish().map(|()| Self { kafka, ..config })
    }

    /// Whether anything but the list of databases differs (secrets are not compared).
    #[must_use]
    pub fn differs_besides_databases(&self, other: &Self) -> bool {
        let settings = |config: &Self| {
            let text = (config.log_format.clone(), config.log_filter.clone());
            (config.http_addr, text, config.shutdown_timeout, config.tuning)
        };
        settings(self) != settings(other) || self.kafka.config_map() != other.kafka.config_map()
    }
}

impl fmt::Display for Config {
    /// For `--check-config`: what will be done, without a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brokers = self.kafka.get("bootstrap.servers").unwrap_or_default();
        writeln!(f, "listens on {}", self.http_addr)?;
        writeln!(f, "publishes to Kafka at {brokers}")?;
        for database in &self.databases {
            writeln!(f, "from {database}")?;
        }
        Ok(())
    }
}

fn read_owner(env: &mut Environment) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "relay".to_owned());
    let given = env.text("OUTBOX_RELAY_OWNER", &format!("{}-{}", host.trim(), std::process::id()));
    // Two processes of one name would take the lease from each other.
    let random = uuid::Uuid::now_v7().as_u128() & 0xffff_ffff;
    format!("{given}-{random:08x}")
}

fn read_tuning(env: &mut Environment) -> Tuning {
    let mut millis = |name, default, range| Duration::from_millis(env.parsed_in(name, default, range));
    let poll_idle_max = millis("OUTBOX_RELAY_POLL_IDLE_MS_MAX", 25, 1..=60_000);
    let poll_busy_pause = millis("OUTBOX_RELAY_POLL_BUSY_PAUSE_MS", 16, 0..=1_000);
    let lease = millis("OUTBOX_RELAY_LEASE_MS", 10_000, 500..=600_000);
    let position_interval = millis("OUTBOX_RELAY_POSITION_INTERVAL_MS", 1_000, 10..=60_000);
    let statement_timeout = millis("OUTBOX_RELAY_STATEMENT_TIMEOUT_MS", 120_000, 1_000..=3_600_000);
    let rows_max = env.parsed_in("OUTBOX_RELAY_PIECE_ROWS_MAX", 2_000_u32, 1..=100_000);
    let bytes_max = env.parsed_in("OUTBOX_RELAY_PIECE_BYTES_MAX", 4_194_304_u32, 1_024..=67_108_864);
    let in_flight_rows = env.parsed_in("OUTBOX_RELAY_IN_FLIGHT_ROWS_MAX", 20_000_usize, 1..=1_000_000);
    let in_flight_bytes =
        env.parsed_in("OUTBOX_RELAY_IN_FLIGHT_BYTES_MAX", 16_777_216_usize, 1_024..=1_073_741_824);
    Tuning {
        piece: Bounds { rows_max, bytes_max },
        in_flight: Limits {
            rows_max: in_flight_rows,
            bytes_max: in_flight_bytes,
            pieces_max: PIECES_IN_FLIGHT_MAX,
        },
        poll_idle_max,
        poll_busy_pause,
        lease,
        position_interval,
        statement_timeout,
    }
}

/// A URL as options, checked by the driver that will use it.
fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    url.parse::<PgConnectOptions>().map(|options| options.application_name(SESSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::read(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())), None)
    }

    fn file(text: &str) -> tempfile::Written {
        tempfile::Written::new(text)
    }

    /// A file of its own for a test, removed after it.
    mod tempfile {
        pub(super) struct Written(pub(super) std::path::PathBuf);

        impl Written {
            pub(super) fn new(text: &str) -> Self {
                let path = std::env::temp_dir().join(format!("outbox-relay-{}.toml", uuid::Uuid::now_v7()));
                std::fs::write(&path, text).unwrap();
                Self(path)
            }
        }

        impl Drop for Written {
            fn drop(&mut self) {
                let _gone = std::fs::remove_file(&self.0);
            }
        }
    }

    #[test]
    fn one_database_is_all_that_is_needed() {
        let config =
            read(&[("OUTBOX_RELAY_DATABASES", "orders=postgres://relay:secret@db:5432/orders")]).unwrap();
        assert_eq!(config.http_addr.port(), 9100);
        assert_eq!(config.kafka.get("bootstrap.servers"), Some("127.0.0.1:9092"));
        assert_eq!(config.kafka.get("partitioner"), Some("murmur2_random"));
        assert_eq!(config.kafka.get("enable.gapless.guarantee"), Some("true"));
        assert!(!format!("{config:?} {config}").contains("secret"));
        assert!(config.to_string().contains("orders"), "{config}");
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let error = read(&[
            ("OUTBOX_RELAY_DATABASES", "orders=mysql://x,=postgres://y,orders"),
            ("OUTBOX_RELAY_LEASE_MS", "1"),
            (
                "OUTBOX_RELAY_KAFKA_PROPERTIES",
                "acks=1;linger.ms;delivery.report.only.error=true;partitioner=random",
            ),
            ("WAYBILL_LOG_FORMAT", "xml"),
            ("RUST_LOG", "outbox_relay=loud"),
            ("OUTBOX_RELAY_CONFIG", "/nowhere/relay.toml"),
        ])
        .unwrap_err();
        let variables: Vec<_> = error.variables().collect();
        for name in [
            "OUTBOX_RELAY_DATABASES",
            "OUTBOX_RELAY_LEASE_MS",
            "OUTBOX_RELAY_KAFKA_PROPERTIES",
            "WAYBILL_LOG_FORMAT",
            "RUST_LOG",
            "OUTBOX_RELAY_CONFIG",
        ] {
            assert!(variables.contains(&name), "{name} in {error}");
        }
        for name in ["acks", "delivery.report.only.error", "partitioner"] {
            assert!(error.to_string().contains(&format!("{name} is fixed")), "{name} in {error}");
        }
    }

    #[test]
    fn one_position_is_served_once() {
        let file = |relay: &str| {
            file(&format!(
                "[[databases]]\nname = 'a'\nurl = 'postgres://one@db/orders'\n\
                 [[databases]]\nname = 'b'\nurl = 'postgres://two@db:5432/orders?sslmode=disable'\nrelay = '{relay}'\n"
            ))
        };
        let error = Config::read([], Some(&file("default").0)).unwrap_err().to_string();
        assert!(error.contains("a and b are the same database and position"), "{error}");
        assert_eq!(Config::read([], Some(&file("second").0)).unwrap().databases.len(), 2);
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file = file(
            r#"
            http_addr = "0.0.0.0:9200"
            [kafka]
            bootstrap_servers = "kafka:9092"
            compression = "lz4"
            [kafka.properties]
            "security.protocol" = "SASL_SSL"
            [tuning]
            lease_ms = 4000
            [[databases]]
            name = "orders"
            url = "postgres://db/orders"
            relay = "second"
            "#,
        );
        let variables = [("KAFKA_BOOTSTRAP_SERVERS".to_owned(), "other:9092".to_owned())];
        let config = Config::read(variables, Some(&file.0)).unwrap();
        assert_eq!(config.http_addr.port(), 9200);
        assert_eq!(config.kafka.get("bootstrap.servers"), Some("other:9092"));
        assert_eq!(config.kafka.get("compression.codec"), Some("lz4"));
        assert_eq!(config.kafka.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.tuning.lease, Duration::from_secs(4));
        assert_eq!(
            (config.databases[0].name.as_str(), config.databases[0].relay.as_str()),
            ("orders", "second")
        );
    }

    #[test]
    fn an_unknown_key_in_the_file_is_a_mistake() {
        let file = file("lease_ms = 4000\n[[databases]]\nname = 'a'\nurl = 'postgres://db/a'\n");
        let error = Config::read([], Some(&file.0)).unwrap_err().to_string();
        assert!(error.contains("lease_ms"), "{error}");
    }
}
