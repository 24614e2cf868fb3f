//! What `/ready` looks at: the database, the consumer, and whether the start is over.

use axum::Router;
use sqlx::PgPool;
use tokio::sync::watch;
use waybill_http::health::{self, Health};
use waybill_messaging::consumer::ConsumerConfig;

use crate::Service;

/// The routes `/health`, `/ready` and `/metrics`.
pub(crate) fn router(
    service: &Service,
    pool: &PgPool,
    kafka: &ConsumerConfig,
    retries: Option<&ConsumerConfig>,
    is_started: watch::Receiver<bool>,
) -> Router {
    let (pool, status) = (pool.clone(), kafka.status.clone());
    let retry_status = retries.map(|retries| retries.status.clone());
    let health = Health::new(service.name, service.version)
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
