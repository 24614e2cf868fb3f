//! Wires the service: its listener first, so that `/health` and `/ready` answer, then everything that needs servers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio::sync::watch;
use waybill_events::topic;
use waybill_http::auth::Verifier;
use waybill_http::health::{self, Health};
use waybill_http::serve::{self, Limits};
use waybill_messaging::config as kafka;
use waybill_messaging::consumer::{self, ConsumerConfig};
use waybill_messaging::topics::{TopicAdmin, TopicsError};
use waybill_outbox::inbox::InboxProcessor;
use waybill_outbox::upkeep;
use waybill_runtime::clock::{Clock, SystemClock};
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};
use waybill_runtime::pool;
use waybill_runtime::retry::Backoff;

use crate::config::Config;
use crate::consumers::payment_commands::{GROUP, PaymentCommands};
use crate::http::{self, AppState};
use crate::provider::sandbox::Sandbox;
use crate::store;
use crate::worker::Worker;

/// This service's name in logs, health and client ids.
pub const NAME: &str = "payments";

/// Everything this service makes or reads, in the manifest's names.
const TOPICS: &[&str] =
    &[topic::PAYMENTS_COMMANDS, topic::PAYMENTS_EVENTS, topic::PAYMENTS_COMMANDS_PAYMENTS_DLQ];

/// Runs the service until it is asked to stop.
///
/// # Errors
/// When it can not start at all: the address is taken, or there are no keys to verify tokens with.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let common = &config.common;
    let pool = pool::connect(&common.postgres, NAME).context("DATABASE_URL can not be used")?;
    let verifier = Verifier::load(&common.jwks, &common.token_issuer, &common.token_audience).await;
    let verifier = Arc::new(verifier.context("WAYBILL_JWKS has no usable keys")?);
    let listener = TcpListener::bind(common.http_addr).await;
    let listener =
        listener.with_context(|| format!("WAYBILL_HTTP_ADDR {} can not be listened on", common.http_addr))?;
    let kafka = ConsumerConfig::new(
        &common.kafka_bootstrap,
        &common.topic_prefix,
        GROUP,
        &[topic::PAYMENTS_COMMANDS],
    );
    let (started, is_started) = watch::channel(false);

    let mut tasks = Tasks::new();
    let health = health(&pool, &kafka, is_started);
    let router = http::router(AppState { pool: pool.clone(), verifier }).merge(health::router(health));
    tracing::info!(address = %listener.local_addr()?, "listening");
    tasks.spawn("http", serve::serve(listener, router, shutdown.clone(), Limits::default()));
    tasks.spawn("work", work(config.clone(), pool, kafka, started, shutdown.clone()));
    Ok(tasks.run_until_shutdown(shutdown, config.common.shutdown_timeout).await)
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

/// Everything behind the listener: migrations, then the consumer, the worker and the upkeep of the tables.
async fn work(
    config: Config,
    pool: PgPool,
    kafka: ConsumerConfig,
    started: watch::Sender<bool>,
    shutdown: Shutdown,
) {
    if !prepare(&config, &pool, &shutdown).await {
        return;
    }
    started.send_replace(true);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let prefix = config.common.topic_prefix.clone();
    let processor = InboxProcessor::new(pool.clone(), &prefix, PaymentCommands::new(Arc::clone(&clock)));
    let provider = Arc::new(Sandbox::new(pool.clone()));
    let worker = Worker { pool: pool.clone(), topic_prefix: prefix, provider, clock };
    let mut tasks = Tasks::new();
    tasks.spawn("upkeep", upkeep::run(pool, shutdown.clone()));
    tasks.spawn("worker", worker.run(shutdown.clone()));
    let consuming = shutdown.clone();
    tasks.spawn("consumer", async move {
        if let Err(error) = consumer::run(kafka, processor, consuming).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the consumer ended");
        }
    });
    tasks.run_until_shutdown(shutdown, config.common.shutdown_timeout).await;
}

/// Waits for the servers and makes the tables; `false` when the shutdown came first.
async fn prepare(config: &Config, pool: &PgPool, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    while pool::wait_until_ready(pool, "the payments database", shutdown).await {
        let error: anyhow::Error = match prepare_once(config, pool).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        tracing::warn!(error = format!("{error:#}"), "not ready to work: trying again");
        shutdown.sleep(backoff.next_wait()).await;
    }
    false
}

async fn prepare_once(config: &Config, pool: &PgPool) -> anyhow::Result<()> {
    for migrator in [&waybill_outbox::MIGRATIONS, &store::MIGRATIONS] {
        migrate(migrator, pool).await.context("the tables could not be made")?;
    }
    upkeep::make(pool).await.context("the partitions could not be made")?;
    topics_check(config).await.context("the topics are not as they should be")
}

/// Several migrators share the database, each with its own range of versions.
async fn migrate(migrator: &Migrator, pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    let mut migrator = Migrator { migrations: migrator.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_ignore_missing(true);
    migrator.run(pool).await
}

async fn topics_check(config: &Config) -> Result<(), TopicsError> {
    let common = &config.common;
    let admin = TopicAdmin::new(&kafka::admin(&common.kafka_bootstrap, NAME), &common.topic_prefix)?;
    admin.check(&waybill_events::topics::manifest_parsed()?, TOPICS).await
}
