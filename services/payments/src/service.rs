//! Wires the service: what it needs, what it serves, what it runs.

use std::sync::Arc;

use tokio::sync::Notify;
use waybill_events::topic;
use waybill_host::{Host, Service, Settings};
use waybill_runtime::clock::{Clock, SystemClock};
use waybill_runtime::lifecycle::{ExitReason, Shutdown};
use waybill_runtime::pool::Pools;

use crate::consumers::payment_commands::PaymentCommands;
use crate::http::{self, AppState};
use crate::provider::sandbox::Sandbox;
use crate::store;
use crate::worker::{self, Worker};

/// This service's name in logs, health and client ids.
pub const NAME: &str = "payments";

/// Topics its consumer group reads, without prefix; the group has the service's name.
pub const READS: &[&str] = &[topic::PAYMENTS_COMMANDS];

/// Runs the service until it is asked to stop.
///
/// # Errors
/// When it can not start at all, see [`Host::run`].
pub async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let service = Service {
        name: NAME,
        version: env!("CARGO_PKG_VERSION"),
        migrations: vec![&waybill_outbox::MIGRATIONS, &store::MIGRATIONS],
        manifest: waybill_events::topics::manifest_parsed()?,
        topics: &[topic::PAYMENTS_COMMANDS, topic::PAYMENTS_EVENTS, topic::PAYMENTS_COMMANDS_PAYMENTS_DLQ],
        reads: READS,
    };
    let topic_prefix = settings.common.topic_prefix.clone();
    let host = Host::new(service, settings, shutdown)?;
    let Pools { reads, background: pool, .. } = host.pools.clone();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let due = Arc::new(Notify::new());
    let handler = PaymentCommands::new(Arc::clone(&clock), Arc::clone(&due));
    let provider = Arc::new(Sandbox::new(pool.clone()));
    let call_timeout = worker::CALL_TIMEOUT;
    let worker = Worker { pool, topic_prefix, provider, clock, due, call_timeout };
    host.run(
        handler,
        |verifier| http::router(AppState { reads, verifier }),
        |tasks, shutdown| tasks.spawn("worker", worker.run(shutdown.clone())),
    )
    .await
}
