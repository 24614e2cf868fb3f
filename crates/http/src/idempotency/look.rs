//! Which request a story began with, as an operator sees it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::postgres::{PgExecutor, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

/// Clocks differ: a key may be older or younger than the id in its answer by so much.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::hours(1);

/// A key as an operator sees it: which request a story began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct KeyUsed {
    /// Whose key.
    pub scope: String,
    /// Method and route.
    pub endpoint: String,
    /// The key.
    pub key: String,
    /// The status that was answered.
    pub status: i16,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// The keys whose answer's `Location` ends in this id, oldest first, at most 20; none where there is no table of keys.
///
/// `id` is a UUIDv7: only keys from about its time are looked at.
///
/// # Errors
/// The database's.
pub async fn keys_of(pool: &PgPool, id: Uuid) -> Result<Vec<KeyUsed>, sqlx::Error> {
    let exists = "select to_regclass('idempotency_keys') is not null";
    if !sqlx::query_scalar::<_, bool>(exists).fetch_one(pool).await? {
        return Ok(Vec::new());
    }
    let made = id.get_timestamp().and_then(|time| i64::try_from(time.to_unix().0).ok());
    let Some(made) = made.and_then(|seconds| DateTime::from_timestamp(seconds, 0)) else {
        return Ok(Vec::new());
    };
    sqlx::query_as(
        "select scope, endpoint, key, status, created_at from idempotency_keys
         where created_at between $1 and $2 and starts_with(reverse(headers ->> 'location'), reverse('/' || $3::text))
         order by created_at limit 20",
    )
    .bind(made - CLOCKS_DIFFER_MAX)
    .bind(made + CLOCKS_DIFFER_MAX)
    .bind(id)
    .fetch_all(pool)
    .await
}

/// When one caller's key was answered with this `Location`, and with which status; `None` when it is forgotten.
///
/// # Errors
/// The database's.
pub async fn key_of_location(
    executor: impl PgExecutor<'_>,
    scope: &str,
    endpoint: &str,
    location: &str,
) -> Result<Option<KeyUsed>, sqlx::Error> {
    sqlx::query_as(
        "select scope, endpoint, key, status, created_at from idempotency_keys
         where scope = $1 and endpoint = $2 and headers ->> 'location' = $3 limit 1",
    )
    .bind(scope)
    .bind(endpoint)
    .bind(location)
    .fetch_optional(executor)
    .await
}
