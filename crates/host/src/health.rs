//! What `/ready` looks at: the database, the consumer, and whether the start is over.

use axum::Router;
use tokio::sync::watch;
use waybill_http::health::{self, Health};
use waybill_messaging::consumer::ConsumerConfig;
use waybill_runtime::pool::Statements;

use crate::Service;

/// The routes `/health`, `/ready` and `/metrics`.
pub(crate) fn router(
    service: &Service,
    probes: &Statements,
    kafka: &ConsumerConfig,
    retries: Option<&ConsumerConfig>,
    is_started: watch::Receiver<bool>,
) -> Router {
    let (probes, status) = (probes.clone(), kafka.status.clone());
    let retry_status = retries.map(|retries| retries.status.clone());
    let health = Health::new(service.name, service.version)
        .check("postgres", move || {
            let probes = probes.clone();
            async move {
                sqlx::query("select 1").execute(&probes).await.map(drop).map_err(|error| {
                    tracing::debug!(%error, "Postgres did not answer a look");
                    // Not the error's own text: anybody may ask, and it may name hosts and users.
                    "does not answer, or refuses this service: the log says why".to_owned()
                })
            }
        })
        .check("kafka", move || {
            let status = status.clone();
            async move { status.check() }
        })
        .check("kafka_retries", move || {
            let status = retry_status.clone();
            async move { status.map_or(Ok(()), |status| status.check()) }
        })
        .check("start", move || {
            let started = *is_started.borrow();
            async move {
                if started {
                    Ok(())
                } else {
                    Err("waiting for Postgres, Kafka and its topics, or the JWKS: the log says for which"
                        .to_owned())
                }
            }
        });
    health::router(health)
}
