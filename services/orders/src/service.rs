//! Wires the service: what it needs, what it serves, what it runs.

use std::sync::Arc;

use sqlx::migrate::Migrator;
use waybill_events::topic;
use waybill_host::{Host, Service};
use waybill_http::idempotency;
use waybill_runtime::clock::SystemClock;
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};
use waybill_runtime::pool::Pools;
use waybill_saga::retention::Retention;
use waybill_saga::{retention, sweeper};

use crate::commands::Context;
use crate::commands::placements::Placements;
use crate::config::Config;
use crate::consumers::deadlines::OrdersFollow;
use crate::consumers::orders_group::OrdersGroup;
use crate::http::saga_desk::OrderSagas;
use crate::http::{self, AppState};
use crate::sagas::Sagas;
use crate::store;

/// This service's name in logs, health and client ids.
pub const NAME: &str = "orders";

/// Topics its consumer group reads, without prefix; the group has the service's name.
pub const READS: &[&str] = &[topic::INVENTORY_EVENTS, topic::PAYMENTS_EVENTS];

/// Every table of this service's database, in the order in which they are made.
pub static MIGRATIONS: [&Migrator; 4] =
    [&waybill_outbox::MIGRATIONS, &waybill_http::MIGRATIONS, &waybill_saga::MIGRATIONS, &store::MIGRATIONS];

/// Runs the service until it is asked to stop.
///
/// # Errors
/// When it can not start at all, see [`Host::run`].
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let service = Service {
        name: NAME,
        version: env!("CARGO_PKG_VERSION"),
        migrations: MIGRATIONS.to_vec(),
        manifest: waybill_events::topics::manifest_parsed()?,
        topics: &[
            topic::ORDERS_EVENTS,
            topic::INVENTORY_COMMANDS,
            topic::INVENTORY_EVENTS,
            topic::INVENTORY_EVENTS_ORDERS_DLQ,
            topic::PAYMENTS_COMMANDS,
            topic::PAYMENTS_EVENTS,
            topic::PAYMENTS_EVENTS_ORDERS_DLQ,
        ],
        reads: READS,
    };
    let topic_prefix = config.host.common.topic_prefix.as_str().into();
    let connections = config.host.common.postgres.bounds.writes;
    let host = Host::new(service, config.host, shutdown)?;
    let Pools { commands, statements, reads, background, .. } = host.pools.clone();
    let context = Context {
        pool: commands,
        placements: Placements::new(statements.clone(), connections),
        statements,
        sagas: Sagas::new(config.patience),
        clock: Arc::new(SystemClock),
        topic_prefix,
        prices: Arc::default(),
    };
    // What nobody waits for with a connection open keeps its own connections, however many orders come in.
    let working = Context { pool: background, ..context.clone() };
    let (workers_context, saga_retention) = (working.clone(), config.saga_retention);
    host.with_sagas(OrderSagas(working.clone()))
        .run(
            OrdersGroup::new(working),
            |verifier| http::router(AppState { context, reads, verifier }),
            |tasks, shutdown| workers(tasks, shutdown, workers_context, saga_retention),
        )
        .await
}

/// What runs beside HTTP and the consumer: old idempotency keys and old sagas go, and both sagas' deadlines fire.
fn workers(tasks: &mut Tasks, shutdown: &Shutdown, context: Context, saga_retention: Retention) {
    tasks.spawn("saga retention", retention::run(context.pool.clone(), saga_retention, shutdown.clone()));
    tasks.spawn("pruning", idempotency::run_pruning(context.pool.clone(), shutdown.clone()));
    let (place, cancel) = (Arc::clone(&context.sagas.place), Arc::clone(&context.sagas.cancel));
    let (working, stop) = (context.clone(), shutdown.clone());
    tasks.spawn("place-order deadlines", async move {
        let Context { pool, topic_prefix, .. } = working.clone();
        sweeper::run(pool, &place, &topic_prefix, &OrdersFollow::new(working), stop).await;
    });
    let stop = shutdown.clone();
    tasks.spawn("cancel-order deadlines", async move {
        let Context { pool, topic_prefix, .. } = context.clone();
        sweeper::run(pool, &cancel, &topic_prefix, &OrdersFollow::new(context), stop).await;
    });
}
