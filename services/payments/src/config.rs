//! What payments reads from its environment: the shared settings, nothing of its own yet.

use waybill_runtime::config::{Common, ConfigError, Environment};

/// Where it listens unless told otherwise.
const HTTP_DEFAULT: &str = "127.0.0.1:8085";

/// The settings of this process.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every service reads.
    pub common: Common,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn read(mut env: Environment) -> Result<Self, ConfigError> {
        let common = Common::read(&mut env, HTTP_DEFAULT);
        env.finish().map(|()| Self { common })
    }
}
