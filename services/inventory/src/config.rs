//! What inventory reads from its environment: the settings every service has, nothing of its own yet.

use waybill_host::{Defaults, Settings, retry_topics};
use waybill_runtime::config::{ConfigError, Environment};

use crate::service;

/// Where it listens unless told otherwise.
const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8084";
/// Where its operators' API listens unless told otherwise.
const OPERATOR_ADDR_DEFAULT: &str = "127.0.0.1:9084";

/// The settings of this process.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every service reads.
    pub host: Settings,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn read(mut env: Environment) -> Result<Self, ConfigError> {
        let host = Settings::read(&mut env, defaults());
        env.finish().map(|()| Self { host })
    }
}

fn defaults() -> Defaults {
    let manifest = waybill_events::topics::manifest_parsed();
    Defaults {
        http_addr: HTTP_ADDR_DEFAULT,
        operator_addr: OPERATOR_ADDR_DEFAULT,
        // A manifest that can not be read is said by the start itself.
        retry_topics: manifest.map_or(0, |manifest| retry_topics(&manifest, service::READS, service::NAME)),
    }
}

impl AsRef<Settings> for Config {
    fn as_ref(&self) -> &Settings {
        &self.host
    }
}
