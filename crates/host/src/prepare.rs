//! Waits for the servers, and makes sure of what is needed on them.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgPool};
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
    migrate(&service.migrations, &common.postgres.url, service.name)
        .await
        .context("the tables could not be made")?;
    upkeep::make(pool).await.context("the partitions could not be made")?;
    topics(service, retry_topics, common).await.context("the topics are not as they should be")
}

/// On a connection of its own, without the sessions' limit of a statement: an `alter` of a large table must be able to end.
async fn migrate(migrators: &[&Migrator], url: &str, name: &str) -> anyhow::Result<()> {
    let mut connection = pool::connect_unhurried(url, name).await?;
    for migrator in migrators {
        // Several migrators share the database: each ignores the others' migrations.
        let mut migrator = Migrator { migrations: migrator.migrations.clone(), ..Migrator::DEFAULT };
        migrator.set_ignore_missing(true);
        migrator.run(&mut connection).await?;
    }
    Ok(connection.close().await?)
}

async fn topics(service: &Service, retry_topics: &[String], common: &Common) -> Result<(), TopicsError> {
    let admin = TopicAdmin::new(&kafka::admin(&common.kafka_bootstrap, service.name), &common.topic_prefix)?;
    let names: Vec<&str> =
        service.topics.iter().copied().chain(retry_topics.iter().map(String::as_str)).collect();
    admin.check(&service.manifest, &names).await
}

#[cfg(test)]
mod tests {
    use sqlx::migrate::{Migration, MigrationType};
    use sqlx::{AssertSqlSafe, SqlSafeStr as _};
    use waybill_testkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn a_migration_may_take_longer_than_any_statement_of_a_service() {
        let database = TestDatabase::create("host_migration").await;
        let looks = "create table limits as
                     select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock";
        let sql = AssertSqlSafe(looks).into_sql_str();
        let migration = Migration::new(1, "limits".into(), MigrationType::Simple, sql, false);
        let migrator = Migrator { migrations: vec![migration].into(), ..Migrator::DEFAULT };
        migrate(&[&migrator], &database.url, "host-test").await.unwrap();
        let limits: (String, String) =
            sqlx::query_as("select statement, lock from limits").fetch_one(&database.pool).await.unwrap();
        assert_eq!(
            limits,
            ("0".to_owned(), "2s".to_owned()),
            "no statement is cut; locks are not waited for"
        );
    }
}
