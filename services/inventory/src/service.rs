//! Wires the service: what it needs, what it serves, what it runs.

use std::sync::Arc;

use waybill_events::topic;
use waybill_host::{Host, Service, Settings};
use waybill_http::idempotency;
use waybill_runtime::clock::{Clock, SystemClock};
use waybill_runtime::lifecycle::{ExitReason, Shutdown};
use waybill_runtime::pool::Pools;

use crate::commands::Context;
use crate::consumers::inventory_commands::InventoryCommands;
use crate::http::{self, AppState};
use crate::store;

/// This service's name in logs, health and client ids.
pub const NAME: &str = "inventory";

/// Topics its consumer group reads, without prefix; the group has the service's name.
pub const READS: &[&str] = &[topic::INVENTORY_COMMANDS];

/// Runs the service until it is asked to stop.
///
/// # Errors
/// When it can not start at all, see [`Host::run`].
pub async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let service = Service {
        name: NAME,
        version: env!("CARGO_PKG_VERSION"),
        migrations: vec![&waybill_outbox::MIGRATIONS, &waybill_http::MIGRATIONS, &store::MIGRATIONS],
        manifest: waybill_events::topics::manifest_parsed()?,
        topics: &[
            topic::INVENTORY_COMMANDS,
            topic::INVENTORY_EVENTS,
            topic::INVENTORY_COMMANDS_INVENTORY_DLQ,
        ],
        reads: READS,
    };
    let topic_prefix = settings.common.topic_prefix.as_str().into();
    let host = Host::new(service, settings, shutdown)?;
    let Pools { commands, reads, background, .. } = host.pools.clone();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let context = Context { pool: commands, topic_prefix, clock: Arc::clone(&clock) };
    host.run(
        InventoryCommands::new(clock),
        |verifier| http::router(AppState { context, reads, verifier }),
        |tasks, shutdown| tasks.spawn("pruning", idempotency::run_pruning(background, shutdown.clone())),
    )
    .await
}
