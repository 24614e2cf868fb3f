//! The process itself: what starts and stops in which order.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::middleware::from_fn_with_state;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio::sync::watch;
use waybill_http::auth::Verifier;
use waybill_http::serve::{self, Limits};
use waybill_messaging::consumer::{self, BatchHandler, ConsumerConfig};
use waybill_messaging::topics::Manifest;
use waybill_outbox::inbox::{Handler, InboxProcessor};
use waybill_outbox::operate::{replays, retention};
use waybill_outbox::upkeep;
use waybill_runtime::config::Common;
use waybill_runtime::lifecycle::{ExitReason, Shutdown, Tasks};
use waybill_runtime::pool::{Pools, Statements};

use crate::faults::Faulty;
use crate::intake::Gate;
use crate::operator::{self, Explainer, Operated, SagaDesk};
use crate::serving::{bind, too_early, when_started, while_serving};
use crate::{Settings, health, intake, prepare};

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
    settings: Settings,
    shutdown: Shutdown,
    sagas: Option<Arc<dyn SagaDesk>>,
    /// The service's database.
    pub pools: Pools,
}

/// Both sockets.
struct Listeners {
    api: TcpListener,
    operator: TcpListener,
}

/// What each socket answers.
struct Routers {
    api: Router,
    operator: Router,
}

/// What the routers are told while the process runs.
struct Signs {
    is_started: watch::Receiver<bool>,
    is_full: watch::Receiver<bool>,
}

impl Signs {
    fn guard(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.is_started.clone(), when_started))
    }

    fn guard_api(&self, router: Router, verifier: Arc<Verifier>, reads: Statements) -> Router {
        let gate = Gate { is_full: self.is_full.clone(), verifier, reads };
        self.guard(router.layer(from_fn_with_state(gate, intake::refuse_when_full)))
    }
}

impl Routers {
    fn serve(self, listeners: Listeners, tasks: &mut Tasks, shutdown: &Shutdown) {
        tasks.spawn("http", serve::serve(listeners.api, self.api, shutdown.clone(), Limits::default()));
        let operating = serve::serve(listeners.operator, self.operator, shutdown.clone(), operator::limits());
        tasks.spawn("operator http", operating);
    }
}

impl Host {
    /// Nothing is started and nobody is asked yet.
    ///
    /// # Errors
    /// When the database's URL can not be read.
    pub fn new(service: Service, settings: Settings, shutdown: Shutdown) -> anyhow::Result<Self> {
        settings.kafka_security.clone().install();
        let pools = Pools::connect(&settings.common.postgres, service.name);
        let pools = pools.context("DATABASE_URL can not be used")?;
        Ok(Self { service, settings, shutdown, sagas: None, pools })
    }

    /// With sagas that operators can look at and mend.
    #[must_use]
    pub fn with_sagas(self, desk: impl SagaDesk + 'static) -> Self {
        Self { sagas: Some(Arc::new(desk)), ..self }
    }

    /// Runs until the shutdown is requested or a part ends on its own.
    ///
    /// `api` makes the service's routes once the keys are there; `workers` starts what it runs beside them, once the
    /// tables are.
    ///
    /// # Errors
    /// When it can not start at all: an address is taken, or there are no keys to verify tokens with.
    pub async fn run<H: Handler>(
        self,
        handler: H,
        api: impl FnOnce(Arc<Verifier>) -> Router,
        workers: impl FnOnce(&mut Tasks, &Shutdown),
    ) -> anyhow::Result<ExitReason> {
        let Self { service, settings, shutdown, sagas, pools } = self;
        let pool = pools.background;
        let (common, policy) = (settings.common, settings.retry);
        let listeners = Listeners {
            api: bind("WAYBILL_HTTP_ADDR", common.http_addr).await?,
            operator: bind("WAYBILL_OPERATOR_ADDR", settings.operator_addr).await?,
        };
        let prefix = &common.topic_prefix;
        let group = handler.group().to_owned();
        let handler = Faulty { handler, faults: settings.faults };
        let processor = InboxProcessor::with_policy(pool.clone(), prefix, handler, policy.clone());
        let kafka = ConsumerConfig::new(&common.kafka_bootstrap, prefix, &group, service.reads);
        let retries = processor.retries().consumer_config(&common.kafka_bootstrap, service.reads);
        let (started, is_started) = watch::channel(false);
        let (full, is_full) = watch::channel(false);
        let health = health::router(&service, &pools.probes, &kafka, retries.as_ref(), is_started.clone());
        let Some((listeners, verifier)) = keys(listeners, &health, &common, &shutdown).await? else {
            return Ok(ExitReason::Requested);
        };
        let operated = Operated {
            service: service.name,
            pool: pool.clone(),
            dry_run: processor.dry_run(),
            sagas,
            explainer: Explainer::new(settings.peers, &common.kafka_bootstrap),
        };
        let operators = operator::router(operated, Arc::clone(&verifier));
        let signs = Signs { is_started, is_full };
        let api = signs.guard_api(api(Arc::clone(&verifier)), verifier, pools.reads);
        let routers = Routers { api: api.merge(health), operator: signs.guard(operators) };
        let mut tasks = Tasks::new();
        routers.serve(listeners, &mut tasks, &shutdown);

        let retry_topics = policy.topics_to_read(service.reads, &group);
        if prepare::all(&service, &retry_topics, &common, &pool, &shutdown).await {
            started.send_replace(true);
            tracing::info!("started");
            tasks.spawn("upkeep", upkeep::run_with(pool.clone(), settings.retention, shutdown.clone()));
            let forgetting = retention::run(pool.clone(), settings.operate_retention, shutdown.clone());
            tasks.spawn("operators' retention", forgetting);
            tasks.spawn(
                "intake",
                intake::watch_backlog(pool.clone(), settings.outbox, full, shutdown.clone()),
            );
            let replaying = replays::run(pool.clone(), prefix.clone(), policy, shutdown.clone());
            tasks.spawn("replays", replaying);
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

/// Waits for the keys and answers 503 on both sockets meanwhile; `None` when the shutdown came first.
async fn keys(
    listeners: Listeners,
    health: &Router,
    common: &Common,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<(Listeners, Arc<Verifier>)>> {
    let waiting = prepare::verifier(common, shutdown);
    let waiting = while_serving(listeners.operator, too_early("/operator/{*path}"), waiting);
    let early = health.clone().merge(too_early("/api/{*path}"));
    let (api, waited) = while_serving(listeners.api, early, waiting).await?;
    let (operator, verifier) = waited?;
    let verifier = verifier.context("WAYBILL_JWKS has no usable keys")?;
    Ok(verifier.map(|verifier| (Listeners { api, operator }, Arc::new(verifier))))
}

async fn consume<H: BatchHandler>(config: ConsumerConfig, processor: H, shutdown: Shutdown) {
    if let Err(error) = consumer::run(config, processor, shutdown).await {
        tracing::error!(error = &error as &dyn std::error::Error, "the consumer ended");
    }
}
