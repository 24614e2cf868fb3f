//! Rows of the sandbox provider. Each statement is a transaction of its own, as each request to a real provider is; those
//! that every order makes take many calls at once.

use std::collections::{HashMap, HashSet};

use sqlx::{FromRow, PgPool};

/// What the sandbox knows of one authorization.
#[derive(Debug, Clone, FromRow)]
pub struct AuthorizationRow {
    /// `pending`, `approved`, `declined` or `voided`.
    pub state: String,
    /// Why it was declined.
    pub reason: Option<String>,
    /// The sandbox's name for it.
    pub reference: String,
}

/// A call that asks for an authorization.
#[derive(Debug, Clone)]
pub struct AuthorizationCall {
    /// The idempotency key.
    pub key: String,
    /// How much.
    pub amount_minor: i64,
    /// Why it is declined; `None`: it is approved.
    pub reason: Option<&'static str>,
    /// How many calls come to nothing before.
    pub skip: i32,
}

/// A call that captures an authorization.
#[derive(Debug, Clone)]
pub struct CaptureCall {
    /// The authorization's key.
    pub key: String,
    /// How much.
    pub amount_minor: i64,
}

/// Counts a call for each key and decides its authorization once more than `skip` calls have come: declined when there
/// is a `reason`, else approved. What was decided stays. No key twice; answers in the order of the calls.
///
/// # Errors
/// The database's; then no call has had its effect, or (a connection lost in the commit) all of them.
pub async fn authorizations_call(
    pool: &PgPool,
    calls: &[AuthorizationCall],
) -> Result<Vec<AuthorizationRow>, sqlx::Error> {
    let rows: Vec<(String, String, Option<String>, String)> = sqlx::query_as(
        "insert into sandbox_authorizations as a (key, amount_minor, reason, calls, state)
         select c.key, c.amount_minor, c.reason, 1,
                case when c.skip > 0 then 'pending' when c.reason is null then 'approved' else 'declined' end
         from unnest($1::text[], $2::bigint[], $3::text[], $4::int[]) as c (key, amount_minor, reason, skip)
         -- Row locks are taken in this order by every statement of several calls.
         order by c.key
         on conflict (key) do update
         set calls = a.calls + 1,
             amount_minor = coalesce(a.amount_minor, excluded.amount_minor),
             state = case when a.state <> 'pending' then a.state
                          when a.calls < (select c.skip from unnest($1::text[], $4::int[]) as c (key, skip)
                                          where c.key = excluded.key) then a.state
                          when a.reason is null then 'approved' else 'declined' end
         returning key, state, reason, reference",
    )
    .bind(calls.iter().map(|call| call.key.as_str()).collect::<Vec<_>>())
    .bind(calls.iter().map(|call| call.amount_minor).collect::<Vec<_>>())
    .bind(calls.iter().map(|call| call.reason).collect::<Vec<_>>())
    .bind(calls.iter().map(|call| call.skip).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    let mut rows: HashMap<String, AuthorizationRow> = rows
        .into_iter()
        .map(|(key, state, reason, reference)| (key, AuthorizationRow { state, reason, reference }))
        .collect();
    // An upsert without a condition returns every row.
    calls.iter().map(|call| rows.remove(&call.key).ok_or(sqlx::Error::RowNotFound)).collect()
}

/// The authorization of a key, if it ever arrived.
///
/// # Errors
/// The database's.
pub async fn authorization_find(pool: &PgPool, key: &str) -> Result<Option<AuthorizationRow>, sqlx::Error> {
    sqlx::query_as("select state, reason, reference from sandbox_authorizations where key = $1")
        .bind(key)
        .fetch_optional(pool)
        .await
}

/// Voids; remembers the void of a key that has not arrived. `false`: captured already.
///
/// # Errors
/// The database's.
pub async fn authorization_void(pool: &PgPool, key: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "insert into sandbox_authorizations as a (key, state) values ($1, 'voided')
         on conflict (key) do update
         set state = case a.state when 'declined' then a.state else 'voided' end
         where a.captured_minor = 0",
    )
    .bind(key)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Captures each once; answers in the order of the calls. `false`: nothing is held, or another amount was captured.
///
/// # Errors
/// The database's; then no call has had its effect, or (a connection lost in the commit) all of them.
pub async fn authorizations_capture(pool: &PgPool, calls: &[CaptureCall]) -> Result<Vec<bool>, sqlx::Error> {
    let captured: Vec<String> = sqlx::query_scalar(
        "with held as materialized (
             select a.key, c.amount_minor
             from sandbox_authorizations a
             join unnest($1::text[], $2::bigint[]) as c (key, amount_minor) on c.key = a.key
             -- The keys are said twice: no plan, made while the table was small, reads all of it.
             where a.key = any($1) and a.state = 'approved' and a.amount_minor = c.amount_minor
               and a.captured_minor in (0, c.amount_minor)
             -- As above: in one order.
             order by a.key for update of a
         )
         update sandbox_authorizations a set captured_minor = held.amount_minor
         from held where a.key = any($1) and a.key = held.key
         returning a.key",
    )
    .bind(calls.iter().map(|call| call.key.as_str()).collect::<Vec<_>>())
    .bind(calls.iter().map(|call| call.amount_minor).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    let captured: HashSet<String> = captured.into_iter().collect();
    Ok(calls.iter().map(|call| captured.contains(&call.key)).collect())
}

/// Refunds once. `false`: not so much was captured, or another amount was refunded.
///
/// # Errors
/// The database's.
pub async fn authorization_refund(pool: &PgPool, key: &str, amount_minor: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "update sandbox_authorizations set refunded_minor = $2
         where key = $1 and captured_minor >= $2 and refunded_minor in (0, $2)",
    )
    .bind(key)
    .bind(amount_minor)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}
