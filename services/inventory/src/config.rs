//! What inventory reads from its environment: the settings every service has, nothing of its own yet.

use waybill_host::{Defaults, Settings};
use waybill_runtime::config::{ConfigError, Environment};

use crate::service;

/// Where it listens unless told otherwise.
const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8084";
/// Where its operators' API listens unless told otherwise.
const OPERATOR_ADDR_DEFAULT: &str = "127.0.0.1:9084";

/// Reads the environment.
///
/// # Errors
/// Every mistake at once.
pub fn read(env: Environment) -> Result<Settings, ConfigError> {
    let manifest = waybill_events::topics::manifest_parsed().ok();
    let (reads, group) = (service::READS, service::NAME);
    Settings::read_alone(
        env,
        Defaults::of(HTTP_ADDR_DEFAULT, OPERATOR_ADDR_DEFAULT, manifest.as_ref(), reads, group),
    )
}
