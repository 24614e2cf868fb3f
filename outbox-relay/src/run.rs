//! The process: a worker per database, and a listener that tells how they are.

use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use waybill_http::health::{Health, router};
use waybill_http::serve::{Limits, serve};
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};

use crate::config::{Config, Source};
use crate::fleet::{Fleet, Roster};
use crate::reload::Reload;

/// This process's name in logs and on `/health`.
pub const NAME: &str = "outbox-relay";

/// Runs until the shutdown is requested; `source` is what `config` was read from, and is read again when it changes.
///
/// # Errors
/// When the listener's address can not be had.
pub async fn run(config: Config, source: Source, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let reload = Reload::new(source, config.clone());
    let address = config.http_addr;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    tracing::info!(%address, owner = config.owner, databases = config.databases.len(), "outbox-relay starts");
    let timeout = config.shutdown_timeout;
    let mut tasks = Tasks::new();
    let roster = Roster::default();
    let fleet = Fleet::start(config, roster.clone());
    tasks.spawn("databases", fleet.run(reload, shutdown.clone()));
    let health = Health::new(NAME, env!("CARGO_PKG_VERSION")).checks(move || roster.ready());
    let limits = Limits { drain_timeout: Duration::from_secs(1).min(timeout), ..Limits::default() };
    tasks.spawn("http", serve(listener, router(health), shutdown.clone(), limits));
    Ok(tasks.run_until_shutdown(shutdown, timeout).await)
}
