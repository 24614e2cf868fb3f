//! A service's process: what starts and stops in which order, the same for every service.
//!
//! 1. The listener, so that `/health` and `/ready` answer from the first moment; the API says 503 until 3 is done.
//! 2. The keys that access tokens are verified with; a JWKS server that is away is waited for, `/ready` saying 503.
//! 3. Postgres, its tables and partitions; Kafka and the topics as the manifest declares them. What is away is waited
//!    for, and the log and `/ready` say for what.
//! 4. The consumer, the one of the group's retry topics, the drainer of what is held, the upkeep of the tables, and the
//!    service's own workers.
//!
//! At the end, all of it is asked to stop at once and gets `WAYBILL_SHUTDOWN_TIMEOUT_MS` together: requests and the
//! batch in hand are finished, offsets committed. A part that ends on its own ends the process with exit code 1.

mod health;
mod prepare;

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio::sync::watch;
use waybill_http::ApiError;
use waybill_http::auth::Verifier;
use waybill_http::serve::{self, Limits};
use waybill_messaging::consumer::{self, BatchHandler, ConsumerConfig};
use waybill_messaging::topics::Manifest;
use waybill_outbox::inbox::{Handler, InboxProcessor};
use waybill_outbox::retry::{self, Policy};
use waybill_outbox::upkeep;
use waybill_runtime::config::Common;
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};
use waybill_runtime::pool;

/// Seconds after which a caller who came too early may try again.
const STARTING_RETRY_AFTER_S: u32 = 1;

/// What distinguishes one service from another.
#[derive(Clone, Debug)]
pub struct Service {
    /// In logs, health, client ids and the database's list of sessions.
    pub name: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// Its tables, in the order in which they are made; several migrators share the database, each with its own versions.
    pub migrations: Vec<&'static Migrator>,
    /// The declaration of all topics.
    pub manifest: Manifest,
    /// Topics it reads or writes, without prefix: checked before it starts to work.
    pub topics: &'static [&'static str],
    /// Topics its consumer group reads, without prefix.
    pub reads: &'static [&'static str],
}

/// A process that is being started.
pub struct Host {
    service: Service,
    common: Common,
    shutdown: Shutdown,
    /// The service's database; connects when it is first used.
    pub pool: PgPool,
}

impl Host {
    /// Nothing is started and nobody is asked yet.
    ///
    /// # Errors
    /// When the database's URL can not be read.
    pub fn new(service: Service, common: Common, shutdown: Shutdown) -> anyhow::Result<Self> {
        let pool = pool::connect(&common.postgres, service.name).context("DATABASE_URL can not be used")?;
        Ok(Self { service, common, shutdown, pool })
    }

    /// Runs until the shutdown is requested or a part ends on its own.
    ///
    /// `api` makes the service's routes once the keys are there; `workers` starts what it runs beside them, once the
    /// tables are.
    ///
    /// # Errors
    /// When it can not start at all: the address is taken, or there are no keys to verify tokens with.
    pub async fn run<H: Handler>(
        self,
        handler: H,
        api: impl FnOnce(Arc<Verifier>) -> Router,
        workers: impl FnOnce(&mut Tasks, &Shutdown),
    ) -> anyhow::Result<ExitReason> {
        let Self { service, common, shutdown, pool } = self;
        let listener = TcpListener::bind(common.http_addr).await;
        let listener = listener
            .with_context(|| format!("WAYBILL_HTTP_ADDR {} can not be listened on", common.http_addr))?;
        tracing::info!(address = %listener.local_addr()?, "listening");
        let prefix = &common.topic_prefix;
        let kafka = ConsumerConfig::new(&common.kafka_bootstrap, prefix, handler.group(), service.reads);
        let (started, is_started) = watch::channel(false);
        let group = handler.group().to_owned();
        let policy = Policy::default();
        let retries = retry::consumer_config(&common.kafka_bootstrap, prefix, &group, service.reads, &policy);
        let health = health::router(&service, &pool, &kafka, retries.as_ref(), is_started.clone());
        let keys = prepare::verifier(&common, &shutdown);
        // Not 404: a client would take the API's absence for the answer.
        let early = health.clone().route("/api/{*path}", any(async || starting()));
        let (listener, verifier) = while_serving(listener, early, keys).await?;
        let Some(verifier) = verifier.context("WAYBILL_JWKS has no usable keys")? else {
            return Ok(ExitReason::Requested);
        };
        let api = api(Arc::new(verifier)).layer(from_fn_with_state(is_started, when_started));
        let router = api.merge(health);

        let mut tasks = Tasks::new();
        tasks.spawn("http", serve::serve(listener, router, shutdown.clone(), Limits::default()));
        let retry_topics: Vec<String> =
            service.reads.iter().flat_map(|topic| policy.topics(topic, &group)).collect();
        if prepare::all(&service, &retry_topics, &common, &pool, &shutdown).await {
            started.send_replace(true);
            tracing::info!("started");
            tasks.spawn("upkeep", upkeep::run(pool.clone(), shutdown.clone()));
            let processor = InboxProcessor::with_policy(pool, prefix, handler, policy);
            if let Some(retries) = retries {
                tasks.spawn("retry consumer", consume(retries, processor.retries(), shutdown.clone()));
            }
            tasks.spawn("drainer", processor.drainer().run(shutdown.clone()));
            tasks.spawn("consumer", consume(kafka, processor, shutdown.clone()));
            workers(&mut tasks, &shutdown);
        }
        Ok(tasks.run_until_shutdown(shutdown, common.shutdown_timeout).await)
    }
}

/// Waits for `work` and serves `router` meanwhile, on the same socket: who connects later finds the next router.
async fn while_serving<T>(
    listener: TcpListener,
    router: Router,
    work: impl Future<Output = T>,
) -> anyhow::Result<(TcpListener, T)> {
    let socket = listener.into_std()?;
    let meanwhile = TcpListener::from_std(socket.try_clone()?)?;
    let done = Shutdown::manual();
    let serving = serve::serve(meanwhile, router, done.clone(), Limits::default());
    let work = async {
        let result = work.await;
        done.request();
        result
    };
    let ((), result) = tokio::join!(serving, work);
    Ok((TcpListener::from_std(socket)?, result))
}

async fn consume<H: BatchHandler>(config: ConsumerConfig, processor: H, shutdown: Shutdown) {
    if let Err(error) = consumer::run(config, processor, shutdown).await {
        tracing::error!(error = &error as &dyn std::error::Error, "the consumer ended");
    }
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
    starting()
}

fn starting() -> Response {
    ApiError::unavailable("the service is starting; /ready tells for what it waits", STARTING_RETRY_AFTER_S)
        .into_response()
}
