//! The orders process: settings, logs, then the service until a signal.

use waybill_orders::config::Config;
use waybill_orders::service;
use waybill_runtime::config::{Environment, exit_on_mistakes};
use waybill_runtime::lifecycle::Shutdown;
use waybill_telemetry::logs;

#[tokio::main]
async fn main() {
    let config = exit_on_mistakes(Config::read(Environment::from_process()));
    let format = config.common.log_format.parse().unwrap_or_default();
    logs::init(service::NAME, format, &config.common.log_filter);
    let code = match service::run(config, Shutdown::on_signals()).await {
        Ok(reason) => reason.code(),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the service could not start");
            1
        }
    };
    std::process::exit(code);
}
