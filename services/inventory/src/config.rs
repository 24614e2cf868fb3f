//! What inventory reads from its environment: the settings every service has, nothing of its own yet.

use waybill_host::Settings;
use waybill_runtime::config::{ConfigError, Environment};

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
        let host = Settings::read(&mut env, HTTP_ADDR_DEFAULT, OPERATOR_ADDR_DEFAULT);
        env.finish().map(|()| Self { host })
    }
}

impl AsRef<Settings> for Config {
    fn as_ref(&self) -> &Settings {
        &self.host
    }
}
