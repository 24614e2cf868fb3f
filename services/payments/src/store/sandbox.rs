//! Rows of the sandbox provider: each call is one statement of its own, as it would be one request to a real provider.

use sqlx::{FromRow, PgPool};

/// What the sandbox knows of one authorization.
#[derive(Debug, FromRow)]
pub struct AuthorizationRow {
    /// `pending`, `approved`, `declined` or `voided`.
    pub state: String,
    /// Why it was declined.
    pub reason: Option<String>,
    /// The sandbox's name for it.
    pub reference: String,
}

/// Counts a call and decides the authorization once more than `skip` calls have come: declined when there is a
/// `reason`, else approved. What was decided stays.
///
/// # Errors
/// The database's.
pub async fn authorization_call(
    pool: &PgPool,
    key: &str,
    amount_minor: i64,
    reason: Option<&str>,
    skip: i32,
) -> Result<AuthorizationRow, sqlx::Error> {
    sqlx::query_as(
        "insert into sandbox_authorizations as a (key, amount_minor, reason, calls, state)
         values ($1, $2, $3, 1, case when $4 > 0 then 'pending' when $3 is null then 'approved' else 'declined' end)
         on conflict (key) do update
         set calls = a.calls + 1,
             amount_minor = coalesce(a.amount_minor, excluded.amount_minor),
             state = case when a.state <> 'pending' or a.calls < $4 then a.state
                          when a.reason is null then 'approved' else 'declined' end
         returning state, reason, reference",
    )
    .bind(key)
    .bind(amount_minor)
    .bind(reason)
    .bind(skip)
    .fetch_one(pool)
    .await
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

/// Captures once. `false`: nothing is held, or another amount was captured.
///
/// # Errors
/// The database's.
pub async fn authorization_capture(pool: &PgPool, key: &str, amount_minor: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "update sandbox_authorizations set captured_minor = $2
         where key = $1 and state = 'approved' and amount_minor = $2 and captured_minor in (0, $2)",
    )
    .bind(key)
    .bind(amount_minor)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
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
