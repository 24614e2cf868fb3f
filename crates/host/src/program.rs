//! A service's program: reads its settings, logs, runs until a signal; or prints an OpenAPI document.

use std::fmt::Debug;
use std::future::Future;
use std::io::Write as _;

use utoipa::openapi::OpenApi;
use waybill_runtime::config::{ConfigError, Environment, exit_on_mistakes};
use waybill_runtime::lifecycle::{ExitReason, Shutdown};
use waybill_telemetry::logs;

use crate::{Settings, operator};

/// What a service's `main` is made of.
#[derive(Debug, Clone, Copy)]
pub struct Program<C> {
    /// The service's name in its log lines.
    pub name: &'static str,
    /// What `--openapi` prints: the API of the main listener.
    pub openapi: fn() -> OpenApi,
    /// Reads the settings, all mistakes at once.
    pub read: fn(Environment) -> Result<C, ConfigError>,
}

impl<C: Debug + AsRef<Settings>> Program<C> {
    /// Runs `service` until it ends, and ends the process with its exit code: 0 when it was asked to stop, 1 when a part
    /// ended on its own, 2 when the configuration has mistakes (each named on standard error).
    ///
    /// With `--openapi` or `--operator-openapi` it prints that document instead, and returns.
    ///
    /// # Errors
    /// When the service can not start at all.
    pub async fn run<F>(self, service: impl FnOnce(C, Shutdown) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<ExitReason>>,
    {
        match std::env::args().nth(1).as_deref() {
            Some("--openapi") => return print(&(self.openapi)()),
            Some("--operator-openapi") => return print(&operator::document()),
            _ => {}
        }
        let config = exit_on_mistakes((self.read)(Environment::from_process()));
        let common = &config.as_ref().common;
        logs::init(self.name, common.log_format.parse().unwrap_or_default(), &common.log_filter);
        tracing::info!(?config, "starting");
        let reason = service(config, Shutdown::on_signals()).await?;
        // Not by returning: the runtime would wait for threads of librdkafka and lookups that may never end.
        std::process::exit(reason.code());
    }
}

fn print(document: &OpenApi) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", document.to_pretty_json()?)?)
}
