//! This service's settings, read once at start from environment variables.

use std::time::Duration;

use waybill_host::{Defaults, Settings};
use waybill_runtime::config::{ConfigError, Environment};
use waybill_saga::retention::Retention;

use crate::sagas::Patience;
use crate::service;

/// Where it listens unless told otherwise.
const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8083";
/// Where its operators' API listens unless told otherwise.
const OPERATOR_ADDR_DEFAULT: &str = "127.0.0.1:9083";

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every service reads.
    pub host: Settings,
    /// `WAYBILL_ORDERS_STEP_DEADLINE_MS`, `WAYBILL_ORDERS_STEP_ATTEMPTS_MAX`, `WAYBILL_ORDERS_RETRY_ATTEMPTS_MAX`,
    /// `WAYBILL_ORDERS_SAGA_DEADLINE_MS`.
    pub patience: Patience,
    /// `WAYBILL_SAGA_RETENTION_DAYS`: how long an ended saga is kept, and how long a confirmed order can be cancelled.
    pub saga_retention: Retention,
}

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn read(mut env: Environment) -> Result<Self, ConfigError> {
        let host = Settings::read(&mut env, defaults());
        let patience = read_patience(&mut env);
        let saga_retention = Retention::read(&mut env);
        env.finish().map(|()| Self { host, patience, saga_retention })
    }
}

fn defaults() -> Defaults {
    let manifest = waybill_events::topics::manifest_parsed().ok();
    let (reads, group) = (service::READS, service::NAME);
    Defaults::of(HTTP_ADDR_DEFAULT, OPERATOR_ADDR_DEFAULT, manifest.as_ref(), reads, group)
}

impl AsRef<Settings> for Config {
    fn as_ref(&self) -> &Settings {
        &self.host
    }
}

fn read_patience(env: &mut Environment) -> Patience {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let mut duration_ms = |name, default| Duration::from_millis(env.parsed_in(name, default, 1..=DAY_MS));
    let step_deadline = duration_ms("WAYBILL_ORDERS_STEP_DEADLINE_MS", Patience::STEP_DEADLINE_MS_DEFAULT);
    let saga_deadline = duration_ms("WAYBILL_ORDERS_SAGA_DEADLINE_MS", Patience::SAGA_DEADLINE_MS_DEFAULT);
    let mut attempts = |name, default| env.parsed_in(name, default, 1..=100_u32);
    let step_attempts_max = attempts("WAYBILL_ORDERS_STEP_ATTEMPTS_MAX", Patience::STEP_ATTEMPTS_MAX_DEFAULT);
    let retry_attempts_max =
        attempts("WAYBILL_ORDERS_RETRY_ATTEMPTS_MAX", Patience::RETRY_ATTEMPTS_MAX_DEFAULT);
    Patience { step_deadline, step_attempts_max, retry_attempts_max, saga_deadline }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::read(Environment::from_map(pairs))
    }

    #[test]
    fn defaults_are_patient_and_can_be_changed() {
        let required = [("DATABASE_URL", "postgres://h/d"), ("WAYBILL_JWKS", "http://h/jwks.json")];
        let config = read(&required).unwrap();
        assert_eq!(config.patience, Patience::default());
        assert_eq!(config.host.common.http_addr.port(), 8083);
        let hasty = [&required[..], &[("WAYBILL_ORDERS_STEP_DEADLINE_MS", "200")]].concat();
        assert_eq!(read(&hasty).unwrap().patience.step_deadline, Duration::from_millis(200));
    }

    #[test]
    fn every_mistake_is_named() {
        let error = read(&[
            ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "0"),
            ("WAYBILL_ORDERS_STEP_ATTEMPTS_MAX", "many"),
            ("WAYBILL_ORDERS_SAGA_DEADLINE_MS", "-1"),
        ]);
        // These three and the two that are required.
        assert_eq!(error.unwrap_err().variables().count(), 5);
    }
}
