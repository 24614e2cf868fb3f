//! The process: a worker per database, and a listener that tells how they are.

use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use waybill_http::health::{Health, router};
use waybill_http::serve::{Limits, serve};
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};

use crate::config::Config;
use crate::worker::Worker;

/// This process's name in logs and on `/health`.
pub const NAME: &str = "outbox-relay";

/// Runs until the shutdown is requested.
///
/// # Errors
/// When the listener's address can not be had.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let address = config.http_addr;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    tracing::info!(%address, owner = config.owner, databases = config.databases.len(), "outbox-relay starts");
    let mut tasks = Tasks::new();
    let mut health = Health::new(NAME, env!("CARGO_PKG_VERSION"));
    for database in &config.databases {
        let worker = Worker::new(&config, database, shutdown.clone());
        let status = worker.status();
        // Once per configured database, at start: names live as long as the process.
        let name: &'static str = database.name.clone().leak();
        health = health.check(name, move || {
            let ready = status.ready();
            async move { ready }
        });
        tasks.spawn(name, worker.run());
    }
    let limits =
        Limits { drain_timeout: Duration::from_secs(1).min(config.shutdown_timeout), ..Limits::default() };
    tasks.spawn("http", serve(listener, router(health), shutdown.clone(), limits));
    Ok(tasks.run_until_shutdown(shutdown, config.shutdown_timeout).await)
}
