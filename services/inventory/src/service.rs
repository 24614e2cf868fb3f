//! Wires the service: its keys and its listener first, so that `/health` and `/ready` answer, then all that needs servers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio::sync::watch;
use waybill_events::topic;
use waybill_http::auth::{AuthError, Verifier};
use waybill_http::health::{self, Health};
use waybill_http::idempotency;
use waybill_http::serve::{self, Limits};
use waybill_messaging::config as kafka;
use waybill_messaging::consumer::{self, ConsumerConfig};
use waybill_messaging::topics::{TopicAdmin, TopicsError};
use waybill_outbox::inbox::InboxProcessor;
use waybill_outbox::upkeep;
use waybill_runtime::clock::{Clock, SystemClock};
use waybill_runtime::config::Common;
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};
use waybill_runtime::pool;
use waybill_runtime::retry::Backoff;

use crate::commands::Context;
use crate::config::Config;
use crate::consumers::inventory_commands::{GROUP, InventoryCommands};
use crate::http::{self, AppState};
use crate::store;

/// This service's name in logs, health and client ids.
pub const NAME: &str = "inventory";

/// Everything this service makes or reads, in the manifest's names.
const TOPICS: &[&str] =
    &[topic::INVENTORY_COMMANDS, topic::INVENTORY_EVENTS, topic::INVENTORY_COMMANDS_INVENTORY_DLQ];

/// Between two looks at a server that is away: soon at first, then so that its logs stay readable.
const WAIT_FIRST: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Runs the service until it is asked to stop.
///
/// # Errors
/// When it can not start at all: the address is taken, or there are no keys to verify tokens with.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let common = config.common;
    let pool = pool::connect(&common.postgres, NAME).context("DATABASE_URL can not be used")?;
    let Some(verifier) = verifier(&common, &shutdown).await.context("WAYBILL_JWKS has no usable keys")?
    else {
        return Ok(ExitReason::Requested);
    };
    let listener = TcpListener::bind(common.http_addr).await;
    let listener =
        listener.with_context(|| format!("WAYBILL_HTTP_ADDR {} can not be listened on", common.http_addr))?;
    let kafka = ConsumerConfig::new(
        &common.kafka_bootstrap,
        &common.topic_prefix,
        GROUP,
        &[topic::INVENTORY_COMMANDS],
    );
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let context = Context { pool: pool.clone(), topic_prefix: common.topic_prefix.as_str().into(), clock };
    let (started, is_started) = watch::channel(false);
    let state =
        AppState { context: context.clone(), verifier: Arc::new(verifier), started: is_started.clone() };
    let router = http::router(state).merge(health::router(health(&pool, &kafka, is_started)));

    let mut tasks = Tasks::new();
    tracing::info!(address = %listener.local_addr()?, "listening");
    tasks.spawn("http", serve::serve(listener, router, shutdown.clone(), Limits::default()));
    if prepare(&common, &pool, &shutdown).await {
        started.send_replace(true);
        tracing::info!("started");
        work(&mut tasks, context, kafka, &shutdown);
    }
    Ok(tasks.run_until_shutdown(shutdown, common.shutdown_timeout).await)
}

/// Everything behind the listener: the consumer, and the upkeep of its tables.
fn work(tasks: &mut Tasks, context: Context, kafka: ConsumerConfig, shutdown: &Shutdown) {
    tasks.spawn("upkeep", upkeep::run(context.pool.clone(), shutdown.clone()));
    tasks.spawn("pruning", idempotency::run_pruning(context.pool.clone(), shutdown.clone()));
    let handler = InventoryCommands::new(Arc::clone(&context.clock));
    let processor = InboxProcessor::new(context.pool, &context.topic_prefix, handler);
    let shutdown = shutdown.clone();
    tasks.spawn("consumer", async move {
        if let Err(error) = consumer::run(kafka, processor, shutdown).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the consumer ended");
        }
    });
}

fn health(pool: &PgPool, kafka: &ConsumerConfig, is_started: watch::Receiver<bool>) -> Health {
    let (pool, status) = (pool.clone(), kafka.status.clone());
    Health::new(NAME, env!("CARGO_PKG_VERSION"))
        .check("postgres", move || {
            let pool = pool.clone();
            async move {
                sqlx::query("select 1").execute(&pool).await.map(drop).map_err(|error| error.to_string())
            }
        })
        .check("kafka", move || {
            let status = status.clone();
            async move { status.check() }
        })
        .check("start", move || {
            let started = *is_started.borrow();
            async move {
                if started { Ok(()) } else { Err("waiting for Postgres, Kafka and its topics".to_owned()) }
            }
        })
}

/// Reads the keys; waits while their server is away. `None` when the shutdown came first.
async fn verifier(common: &Common, shutdown: &Shutdown) -> Result<Option<Verifier>, AuthError> {
    let mut backoff = Backoff::new(WAIT_FIRST, WAIT_MAX);
    loop {
        match Verifier::load(&common.jwks, &common.token_issuer, &common.token_audience).await {
            Ok(verifier) => return Ok(Some(verifier)),
            Err(error @ AuthError::Fetch { .. }) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "waiting for the JWKS");
                if !shutdown.sleep(backoff.next_wait()).await {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the servers and makes the tables; `false` when the shutdown came first.
async fn prepare(common: &Common, pool: &PgPool, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new(WAIT_FIRST, WAIT_MAX);
    while pool::wait_until_ready(pool, "the inventory database", shutdown).await {
        let Err(error) = prepare_once(common, pool).await else { return true };
        tracing::warn!(error = format!("{error:#}"), "not ready to work: trying again");
        shutdown.sleep(backoff.next_wait()).await;
    }
    false
}

async fn prepare_once(common: &Common, pool: &PgPool) -> anyhow::Result<()> {
    for migrator in [&waybill_outbox::MIGRATIONS, &waybill_http::MIGRATIONS, &store::MIGRATIONS] {
        migrate(migrator, pool).await.context("the tables could not be made")?;
    }
    upkeep::make(pool).await.context("the partitions could not be made")?;
    topics_check(common).await.context("the topics are not as they should be")
}

/// Several migrators share the database, each with its own range of versions.
async fn migrate(migrator: &Migrator, pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    let mut migrator = Migrator { migrations: migrator.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_ignore_missing(true);
    migrator.run(pool).await
}

async fn topics_check(common: &Common) -> Result<(), TopicsError> {
    let admin = TopicAdmin::new(&kafka::admin(&common.kafka_bootstrap, NAME), &common.topic_prefix)?;
    admin.check(&waybill_events::topics::manifest_parsed()?, TOPICS).await
}
