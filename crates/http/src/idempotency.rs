//! `Idempotency-Key`: the same key gets the first answer's bytes again; the key's row commits with the work.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgExecutor, PgPool};
use sqlx::types::Json;
use tokio::task::JoinHandle;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use waybill_runtime::lifecycle::Shutdown;

use crate::error::ApiError;

/// Longest key: a UUID with room; it is part of an index row.
pub const KEY_CHARS_MAX: usize = 128;
/// How long an answer is kept: a client that tries again does so within the day.
pub const KEY_HOURS_MAX: i32 = 24;
/// Rows deleted by one statement: each is a short transaction.
const PRUNE_ROWS_MAX: i64 = 1_000;
/// Statements of one round of pruning; what is left waits for the next round.
const PRUNE_STATEMENTS_MAX: u32 = 500;
/// Pause between two rounds: old keys do no harm, they only take space.
const PRUNE_PAUSE: Duration = Duration::from_secs(600);

/// Clocks differ: a key may be older or younger than the id in its answer by so much.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::hours(1);

static HEADER: HeaderName = HeaderName::from_static("idempotency-key");
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The caller's key, without quotes: 1 to [`KEY_CHARS_MAX`] visible ASCII characters.
///
/// An extractor: 400 `idempotency_key_missing` or `idempotency_key_malformed`. Both forms of the header are one key:
/// bare, as most clients send it, and quoted, as the IETF draft has it (a structured-field string).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// Documents the header in OpenAPI: `params(IdempotencyKeyParam)`.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyKeyParam {
    /// Names this request: the same key with the same body gets the first answer again for 24 hours.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 128,
        example = "8e03978e-40d5-43e8-bc93-6894a57f9324"
    )]
    pub idempotency_key: String,
}

impl IdempotencyKey {
    /// Reads a header's value, bare or quoted.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let key = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => value.to_owned(),
        };
        let valid =
            (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then_some(Self(key))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(&HEADER).iter();
        let Some(value) = values.next() else {
            return Err(ApiError::bad_request(
                "idempotency_key_missing",
                "send the header Idempotency-Key with a new UUID, and the same one when you try again",
            ));
        };
        let key = value.to_str().ok().and_then(Self::parse);
        key.filter(|_| values.next().is_none()).ok_or_else(|| {
            ApiError::bad_request(
                "idempotency_key_malformed",
                format!("Idempotency-Key is one value of 1 to {KEY_CHARS_MAX} visible ASCII characters"),
            )
        })
    }
}

/// The rest of a structured-field string after its first quote (RFC 8941 section 3.3.3).
fn unquoted(rest: &str) -> Option<String> {
    let inner = rest.strip_suffix('"')?;
    let mut key = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            _ => key.push(character),
        }
    }
    Some(key)
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::from_headers(&parts.headers)
    }
}

/// SHA-256 of the parsed body's canonical bytes: spaces and the order of fields do not make another request.
#[must_use]
pub fn request_hash(canonical: &[u8]) -> [u8; 32] {
    Sha256::digest(canonical).into()
}

/// [`request_hash`] of a parsed body, written again by serde: one layout whatever the caller's was.
///
/// # Errors
/// 500 when the type can not be written as JSON.
pub fn request_hash_of(parsed: &impl Serialize) -> Result<[u8; 32], ApiError> {
    serde_json::to_vec(parsed).map(|bytes| request_hash(&bytes)).map_err(|error| ApiError::internal(&error))
}

/// An answer that is stored before it is given, so that it can be given again, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The JSON body.
    pub body: Vec<u8>,
    /// Whether this is a stored answer given again: it then carries `Idempotency-Replayed: true`.
    pub replayed: bool,
}

impl StoredResponse {
    /// A first answer with these bytes as its JSON body.
    #[must_use]
    pub fn new(status: StatusCode, location: Option<String>, body: Vec<u8>) -> Self {
        Self { status: status.as_u16(), location, body, replayed: false }
    }

    /// A first answer with this value as its JSON body.
    ///
    /// # Errors
    /// 500 when the value can not be written as JSON.
    pub fn json(
        status: StatusCode,
        location: Option<String>,
        value: &impl Serialize,
    ) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(|error| ApiError::internal(&error))?;
        Ok(Self::new(status, location, body))
    }

    /// The `headers` column, also the sixth argument of the SQL function `idempotency_claim`.
    #[must_use]
    pub fn headers_json(&self) -> String {
        self.location
            .as_ref()
            .map_or_else(|| "{}".to_owned(), |at| serde_json::json!({ "location": at }).to_string())
    }

    /// The `status` column, also the fifth argument of the SQL function `idempotency_claim`.
    #[must_use]
    pub fn status_column(&self) -> i16 {
        i16::try_from(self.status).unwrap_or(500)
    }
}

impl IntoResponse for StoredResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(location) = self.location.and_then(|at| HeaderValue::try_from(at).ok()) {
            headers.insert(LOCATION, location);
        }
        if self.replayed {
            headers.insert(REPLAYED.clone(), HeaderValue::from_static("true"));
        }
        response
    }
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is ours: do the work in the same transaction.
    New,
    /// It was used: give this answer.
    Replay(StoredResponse),
}

type Row = (Vec<u8>, i16, Json<serde_json::Map<String, serde_json::Value>>, Vec<u8>);

/// The stored answer of a key, when its work was committed. Takes a pool or a connection.
///
/// # Errors
/// 422 `idempotency_key_reused` when the key was used with another body; those of `From<sqlx::Error>`.
pub async fn key_find(
    executor: impl PgExecutor<'_>,
    scope: &str,
    endpoint: &str,
    key: &IdempotencyKey,
    hash: &[u8; 32],
) -> Result<Option<StoredResponse>, ApiError> {
    let row: Option<Row> = sqlx::query_as(
        "select request_hash, status, headers, body from idempotency_keys
         where scope = $1 and endpoint = $2 and key = $3",
    )
    .bind(scope)
    .bind(endpoint)
    .bind(key.as_str())
    .fetch_optional(executor)
    .await?;
    let Some((stored_hash, status, Json(headers), body)) = row else { return Ok(None) };
    if stored_hash != hash {
        return Err(ApiError::unprocessable(
            "idempotency_key_reused",
            "this Idempotency-Key was used with another body: use a new key for another request",
        ));
    }
    let location = headers.get("location").and_then(|value| value.as_str()).map(str::to_owned);
    let status = u16::try_from(status).unwrap_or(500);
    Ok(Some(StoredResponse { status, location, body, replayed: true }))
}

/// [`key_find`] after a claim was lost: the answer must be there. When it is not (the winner's row was pruned in
/// between, or its transaction is not visible yet), the caller hears 409 and tries again.
///
/// # Errors
/// As [`key_find`], and 409 `idempotency_key_in_progress`.
pub async fn key_replay(
    executor: impl PgExecutor<'_>,
    scope: &str,
    endpoint: &str,
    key: &IdempotencyKey,
    hash: &[u8; 32],
) -> Result<StoredResponse, ApiError> {
    key_find(executor, scope, endpoint, key, hash).await?.ok_or_else(ApiError::key_in_progress)
}

/// Takes a key with its answer, in the transaction that does the work; `false` when it is taken.
///
/// While another transaction holds the key it waits at most `lock_timeout`, then fails with an error whose
/// `ApiError::from` is 409 `idempotency_key_in_progress`; when that transaction rolls back, the key is ours.
///
/// # Errors
/// The database's.
pub async fn key_insert_in_tx(
    executor: impl PgExecutor<'_>,
    scope: &str,
    endpoint: &str,
    key: &IdempotencyKey,
    hash: &[u8; 32],
    answer: &StoredResponse,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select idempotency_claim($1, $2, $3, $4, $5, $6::json, $7)")
        .bind(scope)
        .bind(endpoint)
        .bind(key.as_str())
        .bind(hash.as_slice())
        .bind(answer.status_column())
        .bind(answer.headers_json())
        .bind(&answer.body)
        .fetch_one(executor)
        .await
}

/// [`key_insert_in_tx`], and the stored answer when the key is taken.
///
/// # Errors
/// As [`key_replay`].
pub async fn key_claim_in_tx(
    conn: &mut sqlx::PgConnection,
    scope: &str,
    endpoint: &str,
    key: &IdempotencyKey,
    hash: &[u8; 32],
    answer: &StoredResponse,
) -> Result<Claim, ApiError> {
    if key_insert_in_tx(&mut *conn, scope, endpoint, key, hash, answer).await? {
        return Ok(Claim::New);
    }
    key_replay(conn, scope, endpoint, key, hash).await.map(Claim::Replay)
}

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

/// Deletes keys older than [`KEY_HOURS_MAX`], in short statements; returns how many.
///
/// # Errors
/// The database's; what was deleted until then stays deleted.
pub async fn keys_prune(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let mut pruned = 0;
    for _ in 0..PRUNE_STATEMENTS_MAX {
        let deleted = sqlx::query(
            "delete from idempotency_keys where ctid = any (array(
                 select ctid from idempotency_keys where created_at < now() - make_interval(hours => $1) limit $2))",
        )
        .bind(KEY_HOURS_MAX)
        .bind(PRUNE_ROWS_MAX)
        .execute(pool)
        .await?
        .rows_affected();
        pruned += deleted;
        if deleted == 0 {
            break;
        }
    }
    Ok(pruned)
}

/// Prunes at the start and every ten minutes until the shutdown; a failure is logged and tried again next time.
pub async fn run_pruning(pool: PgPool, shutdown: Shutdown) {
    loop {
        match keys_prune(&pool).await {
            Ok(0) => {}
            Ok(pruned) => tracing::info!(pruned, "old idempotency keys deleted"),
            Err(error) => tracing::warn!(%error, "old idempotency keys could not be deleted"),
        }
        if !shutdown.sleep(PRUNE_PAUSE).await {
            return;
        }
    }
}

/// [`run_pruning`] in a task of its own.
pub fn spawn_pruning(pool: PgPool, shutdown: Shutdown) -> JoinHandle<()> {
    tokio::spawn(run_pruning(pool, shutdown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        let key = |value| IdempotencyKey::parse(value).map(|key| key.0);
        assert_eq!(key("abc-1"), Some("abc-1".to_owned()));
        assert_eq!(key("\"abc-1\""), Some("abc-1".to_owned()));
        assert_eq!(key(r#""a\"b\\c""#), Some(r#"a"b\c"#.to_owned()));
        assert_eq!(key(&"k".repeat(128)).map(|k| k.len()), Some(128));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let long = "k".repeat(129);
        for bad in
            ["", "  ", "\"\"", "\"abc", r#""a\b""#, r#""a"b""#, "a b", "schlüssel", "a\tb", "\"", &long]
        {
            assert_eq!(IdempotencyKey::parse(bad), None, "{bad}");
        }
    }
}
