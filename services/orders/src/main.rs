//! The orders service: reads its configuration, runs until a signal. `--openapi` prints the OpenAPI document instead.

use waybill_orders::config::Config;
use waybill_orders::{http, service};
use waybill_runtime::config::{Environment, exit_on_mistakes};
use waybill_runtime::lifecycle::Shutdown;
use waybill_telemetry::logs;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--openapi") {
        use std::io::Write as _;
        return Ok(writeln!(std::io::stdout(), "{}", http::document().to_pretty_json()?)?);
    }
    let config = exit_on_mistakes(Config::read(Environment::from_process()));
    let format = config.common.log_format.parse().unwrap_or_default();
    logs::init(service::NAME, format, &config.common.log_filter);
    tracing::info!(?config, "starting");
    let reason = service::run(config, Shutdown::on_signals()).await?;
    std::process::exit(reason.code());
}
