//! New commands are turned away while too much waits to be published; reads and consumers go on.
//!
//! A look at the outbox every second, none per request. So the bound is soft: what a second brings may come on top. A
//! command that was accepted before under the same idempotency key is let through to its stored answer.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use prometheus::{IntCounter, IntGauge};
use sqlx::PgPool;
use tokio::sync::watch;
use waybill_http::ApiError;
use waybill_http::auth::Verifier;
use waybill_http::idempotency::{IdempotencyKey, key_is_known};
use waybill_outbox::backlog::{self, Backlog};
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::{Statements, round};
use waybill_telemetry::metrics::{counter_vec, int_gauge_vec};

use crate::settings::OutboxBound;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Commands are accepted again when the backlog is down to this share of its bound, so that the answer does not
/// change with every look.
const REOPEN_PERCENT: u64 = 90;
/// Seconds after which a command that was turned away may come again.
const RETRY_AFTER_S: u32 = 5;

static UNPUBLISHED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Outbox rows that wait to be published, as estimated by the service each second.";
    int_gauge_vec("outbox_unpublished_rows", help, &[]).with_label_values::<&str>(&[])
});

static CLOSED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "1 while commands are turned away because too much waits to be published.";
    int_gauge_vec("outbox_full", help, &[]).with_label_values::<&str>(&[])
});

static REFUSED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Commands turned away because too much waits to be published.";
    counter_vec("outbox_full_refusals_total", help, &[]).with_label_values::<&str>(&[])
});

/// Looks at the outbox every second until the shutdown, and says in `is_full` whether commands are to be turned away. While
/// the database does not answer, it stays as it was: commands then fail by themselves.
pub(crate) async fn watch_backlog(
    pool: PgPool,
    bound: OutboxBound,
    is_full: watch::Sender<bool>,
    shutdown: Shutdown,
) {
    loop {
        match round(backlog::look(&pool, bound.rows_max)).await {
            Ok(backlog) => {
                UNPUBLISHED.set(i64::try_from(backlog.rows).unwrap_or(i64::MAX));
                let full = is_over(&backlog, &bound, *is_full.borrow());
                CLOSED.set(i64::from(full));
                if is_full.send_if_modified(|was| std::mem::replace(was, full) != full) {
                    tell(full, &backlog, &bound);
                }
            }
            Err(error) => tracing::debug!(%error, "the outbox could not be looked at"),
        }
        if !shutdown.sleep(LOOK_INTERVAL).await {
            return;
        }
    }
}

fn is_over(backlog: &Backlog, bound: &OutboxBound, was: bool) -> bool {
    let percent = if was { REOPEN_PERCENT } else { 100 };
    let rows = backlog.rows * 100 > u64::from(bound.rows_max) * percent;
    let age = bound.age_max.is_some_and(|max| {
        backlog.oldest_age.is_some_and(|age| age.as_millis() * 100 > max.as_millis() * u128::from(percent))
    });
    rows || age
}

fn tell(full: bool, backlog: &Backlog, bound: &OutboxBound) {
    let (rows, rows_max) = (backlog.rows, bound.rows_max);
    let oldest_age_ms = backlog.oldest_age.map_or(0, |age| age.as_millis());
    if full {
        let why = "too much waits to be published: commands are turned away until the relay has caught up";
        tracing::error!(rows, rows_max, oldest_age_ms, "{why}");
    } else {
        tracing::info!(rows, rows_max, oldest_age_ms, "the relay has caught up: commands are accepted again");
    }
}

/// What decides whether a request may pass.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Whether too much waits to be published.
    pub(crate) is_full: watch::Receiver<bool>,
    /// Who calls, for whose keys are looked at.
    pub(crate) verifier: Arc<Verifier>,
    /// Where the keys are.
    pub(crate) reads: Statements,
}

/// Answers 503 `outbox_full` to whatever may change something, while the outbox is full; nothing is written then. A
/// command whose idempotency key has its answer passes: it is answered from what is stored.
pub(crate) async fn refuse_when_full(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || !*gate.is_full.borrow() {
        return next.run(request).await;
    }
    if let Some((endpoint, headers)) = asked(&request)
        && gate.is_answered(&endpoint, &headers).await
    {
        return next.run(request).await;
    }
    REFUSED.inc();
    let message = "too much waits to be published: nothing was done, send the same again later";
    let refusal = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "outbox_full", message);
    ApiError { retry_after_s: Some(RETRY_AFTER_S), ..refusal }.into_response()
}

/// Method and route, as idempotency keys are stored with, and the headers.
fn asked(request: &Request) -> Option<(String, HeaderMap)> {
    let path = request.extensions().get::<MatchedPath>()?;
    Some((format!("{} {}", request.method(), path.as_str()), request.headers().clone()))
}

impl Gate {
    /// Whether the answer is stored. Whoever shows no valid token and no key is not looked up: he hears the refusal.
    async fn is_answered(&self, endpoint: &str, headers: &HeaderMap) -> bool {
        let Ok(key) = IdempotencyKey::from_headers(headers) else { return false };
        let Ok(caller) = self.verifier.caller(headers).await else { return false };
        key_is_known(&self.reads, &caller, endpoint, &key).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "an idempotency key could not be looked at");
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use waybill_runtime::pool;
    use waybill_testkit::{TcpSwitch, TestDatabase};

    use super::*;

    /// Longer than a look is waited for; a connection that is not given up is missing for a quarter of an hour.
    const GIVEN_UP: Duration = Duration::from_secs(180);

    #[tokio::test]
    async fn a_look_that_the_network_lost_is_given_up_and_the_next_one_tells() {
        let database = TestDatabase::create("intake").await;
        database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
        let (switch, through) = TcpSwitch::in_front_of(&database.url).await;
        let mut other = database.pool.begin().await.unwrap();
        sqlx::query("lock table outbox_relay in access exclusive mode").execute(&mut *other).await.unwrap();
        let pool = pool::connect(&through, 1, "host-test").unwrap();
        let (full, mut is_full) = watch::channel(false);
        let (bound, shutdown) = (OutboxBound { rows_max: 0, age_max: None }, Shutdown::manual());
        let watching = tokio::spawn(watch_backlog(pool, bound, full, shutdown.clone()));
        database.locks_waited_for(1).await;
        switch.fall_silent();
        other.rollback().await.unwrap();
        let append =
            "select outbox_append(array[gen_random_uuid()], array['things.events'], array['key'::bytea],
                                           array['{}'], array['x'::bytea])";
        sqlx::query(append).execute(&database.pool).await.unwrap();
        tokio::time::timeout(GIVEN_UP, is_full.changed()).await.expect("it looks again").unwrap();
        assert!(*is_full.borrow());
        shutdown.request();
        watching.await.unwrap();
    }

    fn over(rows: u64, age_s: u64, was: bool) -> bool {
        let bound = OutboxBound { rows_max: 100, age_max: Some(Duration::from_secs(60)) };
        let backlog = Backlog { rows, oldest_age: Some(Duration::from_secs(age_s)) };
        is_over(&backlog, &bound, was)
    }

    #[test]
    fn rows_and_age_close_it_and_it_opens_with_some_room() {
        assert!(!over(100, 60, false));
        assert!(over(101, 0, false));
        assert!(over(0, 61, false));
        assert!(over(95, 0, true), "not at once");
        assert!(over(0, 57, true));
        assert!(!over(90, 54, true));
    }

    #[test]
    fn without_an_age_only_rows_count() {
        let bound = OutboxBound { rows_max: 1, age_max: None };
        let old = Backlog { rows: 1, oldest_age: Some(Duration::from_secs(86_400)) };
        assert!(!is_over(&old, &bound, false));
    }
}
