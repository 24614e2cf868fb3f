//! `/health`, `/ready` and `/metrics`, the same on every process.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;
use waybill_telemetry::metrics;

/// A dependency that has not answered after this long counts as away.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one look at the dependencies serves every asker: asking often must not load them.
const REPORT_AGE_MAX: Duration = Duration::from_secs(1);

type Checks = Arc<dyn Fn() -> Vec<(String, Result<(), String>)> + Send + Sync>;
type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What a process tells of itself; give it to [`router`].
#[derive(Clone)]
pub struct Health {
    service: &'static str,
    version: &'static str,
    started: Instant,
    checks: Vec<(&'static str, Check)>,
    changing: Option<Checks>,
    last: Arc<Mutex<Option<(Instant, Readiness)>>>,
}

/// The answer of `/health`: the process runs. It looks at nothing else, so that a dependency's outage does not get
/// every process killed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HealthReport {
    /// Always `ok`.
    pub status: &'static str,
    /// Which service this is.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Resident memory in bytes; absent where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// The answer of `/ready`: 200 when every dependency answers, else 503.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready` or `unavailable`.
    pub status: &'static str,
    /// Each dependency by name.
    pub dependencies: BTreeMap<String, Dependency>,
}

/// One dependency of [`Readiness`].
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Dependency {
    /// `up` or `down`.
    pub status: &'static str,
    /// Why it counts as down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Health {
    /// A process without dependencies, started now.
    #[must_use]
    pub fn new(service: &'static str, version: &'static str) -> Self {
        let checks = Vec::new();
        Self { service, version, started: Instant::now(), checks, changing: None, last: Arc::default() }
    }

    /// One dependency: `check` answers why it is away. It gets one second, at most once a second.
    #[must_use]
    pub fn check<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// Dependencies that come and go: `list` answers, at once, which there are now and why each is away.
    #[must_use]
    pub fn checks(
        mut self,
        list: impl Fn() -> Vec<(String, Result<(), String>)> + Send + Sync + 'static,
    ) -> Self {
        self.changing = Some(Arc::new(list));
        self
    }

    fn report(&self) -> HealthReport {
        HealthReport {
            status: "ok",
            service: self.service,
            version: self.version,
            uptime_seconds: self.started.elapsed().as_secs(),
            memory_bytes: memory_bytes(),
        }
    }

    /// The dependencies now, or as they were up to a second ago.
    pub async fn readiness(&self) -> Readiness {
        let mut last = self.last.lock().await;
        if let Some((at, readiness)) = last.as_ref()
            && at.elapsed() <= REPORT_AGE_MAX
        {
            return readiness.clone();
        }
        let looks =
            self.checks.iter().map(|(name, check)| async move { ((*name).to_owned(), look(check).await) });
        let mut dependencies: BTreeMap<_, _> = join_all(looks).await.into_iter().collect();
        let changing = self.changing.as_ref().map(|list| list()).unwrap_or_default();
        dependencies.extend(changing.into_iter().map(|(name, answer)| (name, Dependency::of(answer.err()))));
        let ready = dependencies.values().all(|dependency| dependency.status == "up");
        let readiness = Readiness { status: if ready { "ready" } else { "unavailable" }, dependencies };
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }
}

/// Routes `/health` `/livez`, `/ready` `/readyz` and `/metrics`; merge it into the service's router.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/health", get(alive))
        .route("/livez", get(alive))
        .route("/ready", get(ready))
        .route("/readyz", get(ready))
        .route("/metrics", get(rendered))
        .with_state(health)
}

async fn alive(State(health): State<Health>) -> Json<HealthReport> {
    Json(health.report())
}

async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.readiness().await;
    let status = if readiness.status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn rendered() -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render()).into_response()
}

async fn look(check: &Check) -> Dependency {
    let why = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
        Ok(answer) => answer.err(),
        Err(_) => Some(format!("no answer after {} ms", CHECK_TIMEOUT.as_millis())),
    };
    Dependency::of(why)
}

impl Dependency {
    fn of(why: Option<String>) -> Self {
        Self { status: if why.is_none() { "up" } else { "down" }, error: why }
    }
}

/// `VmRSS` of /proc/self/status, which the kernel gives in KiB whatever its page size.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
