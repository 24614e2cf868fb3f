//! What every service's process reads beside the settings that all processes share.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use waybill_http::jwks;
use waybill_messaging::security::Security;
use waybill_messaging::topics::Manifest;
use waybill_outbox::operate;
use waybill_outbox::retry::{Policy, RetryTopics};
use waybill_outbox::upkeep::Retention;
use waybill_runtime::config::{Common, ConfigError, Environment};
use waybill_telemetry::logs;

use crate::faults::Faults;
use crate::peers::Peers;

/// Unpublished rows at which new commands are turned away, unless told otherwise: minutes of a relay that is away at a
/// hundred orders a second, seconds of its work once it is back, and some hundred megabytes.
const UNPUBLISHED_ROWS_DEFAULT: u32 = 100_000;
/// Most that can be set: more are not counted, the look each second must stay cheap.
const UNPUBLISHED_ROWS_MAX: u32 = 1_000_000;
/// Longest age that can be set: a day.
const UNPUBLISHED_AGE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The settings of a service's process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What every process reads.
    pub common: Common,
    /// `KAFKA_SECURITY_PROTOCOL`, `KAFKA_SASL_...`, `KAFKA_SSL_...`.
    pub kafka_security: Security,
    /// `WAYBILL_OPERATOR_ADDR`: where the operators' API listens.
    pub operator_addr: SocketAddr,
    /// `WAYBILL_OPERATOR_PEERS`: other services' operator listeners, for stories told whole.
    pub peers: Peers,
    /// `WAYBILL_RETRY_...`: how the consumer group retries.
    pub retry: Policy,
    /// `WAYBILL_OUTBOX_UNPUBLISHED_MAX`, `WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX`.
    pub outbox: OutboxBound,
    /// `WAYBILL_OUTBOX_RETENTION_DAYS`, `WAYBILL_INBOX_RETENTION_DAYS`.
    pub retention: Retention,
    /// `WAYBILL_OPERATE_RETENTION_DAYS`: how long what operators settled is kept.
    pub operate_retention: Duration,
    /// `WAYBILL_FAULTS`: failures on purpose; never in a release build.
    pub faults: Faults,
}

/// How much may wait to be published before new commands are turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBound {
    /// Rows.
    pub rows_max: u32,
    /// Age of the oldest row; `None`: however old.
    pub age_max: Option<Duration>,
}

impl Default for OutboxBound {
    fn default() -> Self {
        Self { rows_max: UNPUBLISHED_ROWS_DEFAULT, age_max: None }
    }
}

/// What a service brings to its settings.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Where it listens unless told otherwise.
    pub http_addr: &'static str,
    /// Where its operators' API listens unless told otherwise.
    pub operator_addr: &'static str,
    /// The declared retry topics of the topics that its group reads: no more tiers are possible.
    pub retry_topics: RetryTopics,
}

impl Defaults {
    /// Of a service that listens here. The retry topics of its group are looked up in the manifest; one that can not be
    /// read (`None`) is said by the start itself.
    #[must_use]
    pub fn of(
        http_addr: &'static str,
        operator_addr: &'static str,
        manifest: Option<&Manifest>,
        reads: &[&str],
        group: &str,
    ) -> Self {
        let names = manifest.into_iter().flat_map(Manifest::topics).map(|topic| topic.name.as_str());
        let retry_topics = RetryTopics::among(names, reads, group);
        Self { http_addr, operator_addr, retry_topics }
    }
}

impl AsRef<Settings> for Settings {
    fn as_ref(&self) -> &Settings {
        self
    }
}

impl Settings {
    /// Reads the environment of a service that has no settings of its own.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn read_alone(mut env: Environment, defaults: Defaults) -> Result<Self, ConfigError> {
        let settings = Self::read(&mut env, defaults);
        env.finish().map(|()| settings)
    }

    /// Reads the environment; mistakes are remembered in `env`.
    pub fn read(env: &mut Environment, defaults: Defaults) -> Self {
        let common = Common::read(env, defaults.http_addr);
        check(env, &common);
        Self {
            common,
            kafka_security: Security::read(env),
            operator_addr: operator_addr(env, defaults.operator_addr),
            retry: Policy::read(env, &defaults.retry_topics),
            peers: Peers::read(env),
            outbox: OutboxBound::read(env),
            retention: Retention::read(env),
            operate_retention: operate::retention::read(env),
            faults: Faults::read(env),
        }
    }
}

impl OutboxBound {
    fn read(env: &mut Environment) -> Self {
        let rows_max = env.parsed_in(
            "WAYBILL_OUTBOX_UNPUBLISHED_MAX",
            UNPUBLISHED_ROWS_DEFAULT,
            1..=UNPUBLISHED_ROWS_MAX,
        );
        let age_ms = env.parsed_in("WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX", 0, 0..=UNPUBLISHED_AGE_MS_MAX);
        Self { rows_max, age_max: (age_ms > 0).then(|| Duration::from_millis(age_ms)) }
    }
}

/// What the shared settings do not know how to check.
fn check(env: &mut Environment, common: &Common) {
    if let Some(mistake) = logs::filter_mistake(&common.log_filter) {
        env.mistake("RUST_LOG", mistake);
    }
    if common.jwks.is_empty() {
        return;
    }
    if let Err(error) = jwks::check_file(&common.jwks) {
        let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
        env.mistake("WAYBILL_JWKS", format!("can not be used: {error}{cause}"));
    }
}

fn operator_addr(env: &mut Environment, default: &str) -> SocketAddr {
    let text = env.text("WAYBILL_OPERATOR_ADDR", default);
    text.parse().unwrap_or_else(|_| {
        env.mistake(
            "WAYBILL_OPERATOR_ADDR",
            format!("{text:?} is no address: write IP:PORT, such as {default}"),
        );
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<&'static str>) {
        let required = [("DATABASE_URL", "postgres://h/d"), ("WAYBILL_JWKS", "http://h/jwks.json")];
        let pairs =
            required.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut env = Environment::from_map(pairs);
        let retry_topics = RetryTopics { tiers: 3, names: vec![] };
        let defaults =
            Defaults { http_addr: "127.0.0.1:8083", operator_addr: "127.0.0.1:9083", retry_topics };
        let settings = Settings::read(&mut env, defaults);
        let mistakes = env.finish().err().map(|error| error.variables().collect()).unwrap_or_default();
        (settings, mistakes)
    }

    #[test]
    fn defaults_are_safe() {
        let (settings, mistakes) = read(&[]);
        assert_eq!(mistakes, Vec::<&str>::new());
        assert_eq!(settings.operator_addr.to_string(), "127.0.0.1:9083");
        assert_eq!(settings.outbox, OutboxBound { rows_max: 100_000, age_max: None });
        assert!(settings.faults.is_none());
    }

    #[test]
    fn bounds_can_be_set() {
        let (settings, mistakes) = read(&[
            ("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "50"),
            ("WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX", "1500"),
            ("WAYBILL_OPERATOR_ADDR", "127.0.0.1:0"),
        ]);
        assert_eq!(mistakes, Vec::<&str>::new());
        let bound = OutboxBound { rows_max: 50, age_max: Some(Duration::from_millis(1500)) };
        assert_eq!(settings.outbox, bound);
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, mistakes) = read(&[
            ("WAYBILL_OPERATOR_ADDR", "9083"),
            ("WAYBILL_OPERATOR_PEERS", "inventory"),
            ("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "0"),
            ("WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX", "-1"),
            ("WAYBILL_FAULTS", "always"),
            ("WAYBILL_RETRY_DELAYS_MS", "1,2,3,4"),
            ("WAYBILL_OUTBOX_RETENTION_DAYS", "0"),
            ("RUST_LOG", "waybill_http=loud"),
            ("WAYBILL_JWKS", "/nowhere/jwks.json"),
            ("WAYBILL_OPERATE_RETENTION_DAYS", "30"),
        ]);
        assert_eq!(mistakes.len(), 10, "{mistakes:?}");
    }
}
