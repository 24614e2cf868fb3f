//! A key and its answer in the database: found, taken, given again.

use axum::http::StatusCode;
use sqlx::postgres::PgExecutor;
use sqlx::types::Json;

use super::{IdempotencyKey, StoredResponse};
use crate::auth::Caller;
use crate::error::ApiError;

/// Postgres' code for a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

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

/// Takes a key before its answer is known, in the transaction that does the work; `false` when it is taken.
/// [`key_answer_in_tx`] must follow in that transaction. Taken first of all, a second request with the key waits for it
/// and not for whatever else the work locks, as [`key_insert_in_tx`] tells.
///
/// # Errors
/// The database's.
pub async fn key_reserve_in_tx(
    executor: impl PgExecutor<'_>,
    scope: &str,
    endpoint: &str,
    key: &IdempotencyKey,
    hash: &[u8; 32],
) -> Result<bool, sqlx::Error> {
    let unknown = StoredResponse::new(StatusCode::INTERNAL_SERVER_ERROR, None, Vec::new());
    key_insert_in_tx(executor, scope, endpoint, key, hash, &unknown).await
}

/// Puts the answer beside a key that [`key_reserve_in_tx`] has taken in this transaction.
///
/// # Errors
/// The database's; `RowNotFound` when the key was not taken.
pub async fn key_answer_in_tx(
    executor: impl PgExecutor<'_>,
    scope: &str,
    endpoint: &str,
    key: &IdempotencyKey,
    answer: &StoredResponse,
) -> Result<(), sqlx::Error> {
    let done = sqlx::query(
        "update idempotency_keys set status = $4, headers = $5::json, body = $6
         where scope = $1 and endpoint = $2 and key = $3",
    )
    .bind(scope)
    .bind(endpoint)
    .bind(key.as_str())
    .bind(answer.status_column())
    .bind(answer.headers_json())
    .bind(&answer.body)
    .execute(executor)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
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

/// Whether this caller's key has its answer stored: the request will be answered from it, and writes nothing. `endpoint` is
/// method and route, as they are when a key is taken. False where there is no table of keys.
///
/// # Errors
/// The database's.
pub async fn key_is_known(
    executor: impl PgExecutor<'_>,
    caller: &Caller,
    endpoint: &str,
    key: &IdempotencyKey,
) -> Result<bool, sqlx::Error> {
    // A customer's keys stand under the UUID in its one form, whichever the token has.
    let scopes = [caller.customer_id().map(|id| id.to_string()).ok(), Some(caller.subject.clone())];
    let known = sqlx::query_scalar(
        "select exists (
             select from idempotency_keys where scope = any($1) and endpoint = $2 and key = $3)",
    )
    .bind(scopes.into_iter().flatten().collect::<Vec<_>>())
    .bind(endpoint)
    .bind(key.as_str())
    .fetch_one(executor)
    .await;
    match known {
        // A service without keys of its own.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNDEFINED_TABLE) => Ok(false),
        known => known,
    }
}
