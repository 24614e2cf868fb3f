//! Waits for the servers, and makes sure of what is needed on them.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use waybill_http::auth::{AuthError, Verifier};
use waybill_messaging::config as kafka;
use waybill_messaging::topics::{TopicAdmin, TopicsError};
use waybill_outbox::upkeep;
use waybill_runtime::config::Common;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool;
use waybill_runtime::retry::Backoff;

use crate::Service;

/// Between two looks at a server that is away: soon at first, then so that the log stays readable.
const WAIT_FIRST: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Reads the keys; waits while their server is away. `None` when the shutdown came first.
pub(crate) async fn verifier(common: &Common, shutdown: &Shutdown) -> Result<Option<Verifier>, AuthError> {
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
pub(crate) async fn all(
    service: &Service,
    retry_topics: &[String],
    common: &Common,
    pool: &PgPool,
    shutdown: &Shutdown,
) -> bool {
    let mut backoff = Backoff::new(WAIT_FIRST, WAIT_MAX);
    while pool::wait_until_ready(pool, service.name, shutdown).await {
        let Err(error) = once(service, retry_topics, common, pool).await else { return true };
        tracing::warn!(error = format!("{error:#}"), "not ready to work: trying again");
        shutdown.sleep(backoff.next_wait()).await;
    }
    false
}

async fn once(
    service: &Service,
    retry_topics: &[String],
    common: &Common,
    pool: &PgPool,
) -> anyhow::Result<()> {
    for migrator in &service.migrations {
        migrate(migrator, pool).await.context("the tables could not be made")?;
    }
    upkeep::make(pool).await.context("the partitions could not be made")?;
    topics(service, retry_topics, common).await.context("the topics are not as they should be")
}

/// Several migrators share the database: each ignores the others' migrations.
async fn migrate(migrator: &Migrator, pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = Migrator { migrations: migrator.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_ignore_missing(true);
    migrator.run(pool).await
}

async fn topics(service: &Service, retry_topics: &[String], common: &Common) -> Result<(), TopicsError> {
    let admin = TopicAdmin::new(&kafka::admin(&common.kafka_bootstrap, service.name), &common.topic_prefix)?;
    let names: Vec<&str> =
        service.topics.iter().copied().chain(retry_topics.iter().map(String::as_str)).collect();
    admin.check(&service.manifest, &names).await
}
