//! Wires the service: its listener first, so that `/health` and `/ready` answer, then everything that needs servers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use tokio::net::TcpListener;
use tokio::sync::watch;
use waybill_events::topic;
use waybill_http::ApiError;
use waybill_http::auth::Verifier;
use waybill_http::health::{self, Health};
use waybill_http::idempotency;
use waybill_http::serve::{self, Limits};
use waybill_messaging::config as kafka;
use waybill_messaging::consumer::{self, ConsumerConfig};
use waybill_messaging::topics::TopicAdmin;
use waybill_outbox::inbox::InboxProcessor;
use waybill_outbox::upkeep;
use waybill_runtime::clock::SystemClock;
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};
use waybill_runtime::pool;
use waybill_runtime::retry::Backoff;
use waybill_saga::sweeper;

use crate::commands::Context;
use crate::config::Config;
use crate::consumers::deadlines::OrdersFollow;
use crate::consumers::orders_group::{GROUP, OrdersGroup};
use crate::http::{self, Api};
use crate::sagas::Sagas;

/// This service's name in logs, health and client ids.
pub const NAME: &str = "orders";

/// What the consumer group reads.
const TOPICS_READ: &[&str] = &[topic::INVENTORY_EVENTS, topic::PAYMENTS_EVENTS];
/// Every topic this service reads or writes: checked against the manifest before it starts to work.
const TOPICS: &[&str] = &[
    topic::ORDERS_EVENTS,
    topic::INVENTORY_COMMANDS,
    topic::INVENTORY_EVENTS,
    topic::INVENTORY_EVENTS_ORDERS_DLQ,
    topic::PAYMENTS_COMMANDS,
    topic::PAYMENTS_EVENTS,
    topic::PAYMENTS_EVENTS_ORDERS_DLQ,
];
/// First and longest wait before preparing is tried again.
const PREPARE_WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Seconds after which a caller who came too early may try again.
const STARTING_RETRY_AFTER_S: u32 = 1;

/// Every table of this service's database, in the order in which they are made.
pub static MIGRATIONS: [&Migrator; 4] =
    [&waybill_outbox::MIGRATIONS, &waybill_http::MIGRATIONS, &waybill_saga::MIGRATIONS, &crate::MIGRATIONS];

/// Runs the service until it is asked to stop.
///
/// # Errors
/// When it can not start at all: the address is taken, or there are no keys to verify tokens with. Servers that are away
/// are waited for; meanwhile `/ready` is 503 and says so.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<ExitReason> {
    let common = &config.common;
    let pool = pool::connect(&common.postgres, NAME).context("DATABASE_URL can not be used")?;
    let verifier = Verifier::load(&common.jwks, &common.token_issuer, &common.token_audience).await;
    let verifier = Arc::new(verifier.context("WAYBILL_JWKS has no usable keys")?);
    let listener = TcpListener::bind(common.http_addr).await;
    let listener =
        listener.with_context(|| format!("WAYBILL_HTTP_ADDR {} can not be listened on", common.http_addr))?;
    let kafka = ConsumerConfig::new(&common.kafka_bootstrap, &common.topic_prefix, GROUP, TOPICS_READ);
    let context = Context {
        pool: pool.clone(),
        sagas: Sagas::new(config.patience),
        clock: Arc::new(SystemClock),
        topic_prefix: common.topic_prefix.as_str().into(),
    };
    let (started, is_started) = watch::channel(false);

    let api = http::router(Api { context: context.clone(), verifier });
    let api = api.layer(from_fn_with_state(is_started.clone(), when_started));
    let router = api.merge(health::router(health(&pool, &kafka, is_started)));
    tracing::info!(address = %listener.local_addr()?, "listening");
    let mut tasks = Tasks::new();
    tasks.spawn("http", serve::serve(listener, router, shutdown.clone(), Limits::default()));
    tasks.spawn("work", work(config.clone(), context, kafka, started, shutdown.clone()));
    Ok(tasks.run_until_shutdown(shutdown, config.common.shutdown_timeout).await)
}

/// Answers 503 until the tables are there.
async fn when_started(
    State(is_started): State<watch::Receiver<bool>>,
    request: Request,
    next: Next,
) -> Response {
    if *is_started.borrow() {
        return next.run(request).await;
    }
    ApiError::unavailable("the service is starting; /ready tells for what it waits", STARTING_RETRY_AFTER_S)
        .into_response()
}

fn health(pool: &PgPool, kafka: &ConsumerConfig, is_started: watch::Receiver<bool>) -> Health {
    let (pool, status) = (pool.clone(), kafka.status.clone());
    Health::new(NAME, env!("CARGO_PKG_VERSION"))
        .check("postgres", move || {
            let pool = pool.clone();
            async move {
                let answer = sqlx::query("select 1").execute(&pool).await;
                answer.map(drop).map_err(|error| error.to_string())
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

/// Everything behind the listener: tables first, then the consumer, the deadlines and the upkeep.
async fn work(
    config: Config,
    context: Context,
    kafka: ConsumerConfig,
    started: watch::Sender<bool>,
    shutdown: Shutdown,
) {
    if !prepare(&config, &context.pool, &shutdown).await {
        return;
    }
    started.send_replace(true);
    tracing::info!("started");
    let Context { pool, sagas, .. } = context.clone();
    let mut tasks = Tasks::new();
    tasks.spawn("upkeep", upkeep::run(pool.clone(), shutdown.clone()));
    tasks.spawn("keys", idempotency::run_pruning(pool.clone(), shutdown.clone()));
    tasks.spawn("consumer", consume(kafka, context.clone(), shutdown.clone()));
    let (prefix, follow, place) =
        (Arc::clone(&context.topic_prefix), OrdersFollow::new(context), sagas.place);
    let sweep = (pool.clone(), Arc::clone(&prefix), follow.clone(), shutdown.clone());
    tasks.spawn("place-order deadlines", async move {
        sweeper::run(sweep.0, &place, &sweep.1, &sweep.2, sweep.3).await;
    });
    let (cancel, stop) = (sagas.cancel, shutdown.clone());
    tasks.spawn("cancel-order deadlines", async move {
        sweeper::run(pool, &cancel, &prefix, &follow, stop).await;
    });
    tasks.run_until_shutdown(shutdown, config.common.shutdown_timeout).await;
}

async fn consume(config: ConsumerConfig, context: Context, shutdown: Shutdown) {
    let prefix = Arc::clone(&context.topic_prefix);
    let processor = InboxProcessor::new(context.pool.clone(), &prefix, OrdersGroup::new(context));
    if let Err(error) = consumer::run(config, processor, shutdown).await {
        tracing::error!(error = &error as &dyn std::error::Error, "the consumer ended");
    }
}

/// Waits for the servers and makes the tables; `false` when the shutdown came first.
async fn prepare(config: &Config, pool: &PgPool, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new(PREPARE_WAIT.0, PREPARE_WAIT.1);
    while pool::wait_until_ready(pool, "the orders database", shutdown).await {
        let Err(error) = prepare_once(config, pool).await else { return true };
        tracing::warn!(error = format!("{error:#}"), "not ready to work: trying again");
        shutdown.sleep(backoff.next_wait()).await;
    }
    false
}

async fn prepare_once(config: &Config, pool: &PgPool) -> anyhow::Result<()> {
    for migrator in MIGRATIONS {
        migrate(migrator, pool).await.context("the tables could not be made")?;
    }
    upkeep::make(pool).await.context("the partitions could not be made")?;
    let common = &config.common;
    let admin = TopicAdmin::new(&kafka::admin(&common.kafka_bootstrap, NAME), &common.topic_prefix)?;
    let manifest = waybill_events::topics::manifest_parsed()?;
    admin.check(&manifest, TOPICS).await.context("the topics are not as they should be")
}

/// Several migrators share the database, each with its own range of versions.
async fn migrate(migrator: &Migrator, pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = Migrator { migrations: migrator.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_ignore_missing(true);
    migrator.run(pool).await
}
