//! Idempotency keys on a real PostgreSQL: one winner, the same bytes, nothing left of a rolled back claim.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use sqlx::PgPool;
use waybill_http::ApiError;
use waybill_http::auth::{Caller, Role};
use waybill_http::idempotency::{
    Claim, IdempotencyKey, StoredResponse, key_claim_in_tx, key_find, key_insert_in_tx, key_is_known,
    keys_prune, request_hash,
};
use waybill_runtime::pool;
use waybill_testkit::{TcpSwitch, TestDatabase};

const ENDPOINT: &str = "POST /api/v1/orders";

struct Keys {
    database: TestDatabase,
    pool: PgPool,
    key: IdempotencyKey,
}

async fn keys() -> Keys {
    let database = TestDatabase::create("idempotency").await;
    database.migrate(&[&waybill_http::MIGRATIONS]).await;
    let pool = pool::connect(&database.url, 16, "test").unwrap();
    Keys { database, pool, key: IdempotencyKey::parse("key-1").unwrap() }
}

fn answer(body: &str) -> StoredResponse {
    StoredResponse::new(StatusCode::ACCEPTED, Some("/api/v1/orders/1".to_owned()), body.as_bytes().to_vec())
}

impl Keys {
    async fn claim(
        &self,
        scope: &str,
        endpoint: &str,
        body: &str,
        answered: &str,
    ) -> Result<Claim, ApiError> {
        let mut tx = self.pool.begin().await?;
        let hash = request_hash(body.as_bytes());
        let claim = key_claim_in_tx(&mut tx, scope, endpoint, &self.key, &hash, &answer(answered)).await?;
        tx.commit().await?;
        Ok(claim)
    }
}

#[tokio::test]
async fn the_same_key_gets_the_same_bytes() {
    let keys = keys().await;
    let bytes = "{\"id\": 1,\n \"note\":\"spaces, \u{fc} and all\"}";
    assert_eq!(keys.claim("u1", ENDPOINT, "body", bytes).await.unwrap(), Claim::New);
    let Claim::Replay(stored) = keys.claim("u1", ENDPOINT, "body", "other bytes").await.unwrap() else {
        panic!("the key is taken")
    };
    assert_eq!(stored, StoredResponse { replayed: true, ..answer(bytes) });
    let response = stored.into_response();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()["idempotency-replayed"], "true");
    assert_eq!(response.headers()["location"], "/api/v1/orders/1");
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    assert_eq!(body, bytes.as_bytes());
    assert!(!answer(bytes).into_response().headers().contains_key("idempotency-replayed"));
}

#[tokio::test]
async fn the_same_key_with_another_body_is_422() {
    let keys = keys().await;
    keys.claim("u1", ENDPOINT, "body", "1").await.unwrap();
    let refused = keys.claim("u1", ENDPOINT, "another body", "2").await.unwrap_err();
    assert_eq!((refused.status.as_u16(), refused.code), (422, "idempotency_key_reused"));
}

#[tokio::test]
async fn another_scope_or_endpoint_is_another_key() {
    let keys = keys().await;
    keys.claim("u1", ENDPOINT, "body", "1").await.unwrap();
    assert_eq!(keys.claim("u2", ENDPOINT, "body", "2").await.unwrap(), Claim::New);
    assert_eq!(keys.claim("u1", "POST /api/v1/products", "body", "3").await.unwrap(), Claim::New);
    let found = key_find(&keys.pool, "u2", ENDPOINT, &keys.key, &request_hash(b"body")).await.unwrap();
    assert_eq!(found.unwrap().body, b"2");
    assert_eq!(key_find(&keys.pool, "u3", ENDPOINT, &keys.key, &request_hash(b"body")).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_is_known_to_its_caller_and_endpoint_alone() {
    let keys = keys().await;
    let customer = "0198f3a0-0000-7000-8000-0000000000aa";
    keys.claim(customer, ENDPOINT, "body", "1").await.unwrap();
    let known = async |subject: &str, role, endpoint: &str| {
        let caller = Caller { subject: subject.to_owned(), role };
        key_is_known(&keys.pool, &caller, endpoint, &keys.key).await.unwrap()
    };
    assert!(known(customer, Role::Customer, ENDPOINT).await);
    assert!(known(&customer.to_uppercase(), Role::Customer, ENDPOINT).await, "the same customer");
    assert!(!known("somebody", Role::Admin, ENDPOINT).await);
    assert!(!known(customer, Role::Customer, "POST /api/v1/products").await);
    sqlx::query("drop table idempotency_keys cascade").execute(&keys.pool).await.unwrap();
    assert!(!known(customer, Role::Customer, ENDPOINT).await, "a service without keys");
}

#[tokio::test]
async fn fifty_claims_at_once_have_one_winner() {
    let mut keys = keys().await;
    // The test's own pool waits longer for a connection and for a lock than a service would on a loaded machine.
    keys.pool = keys.database.pool.clone();
    let keys = std::sync::Arc::new(keys);
    let claims = (0..50).map(|n| {
        let keys = keys.clone();
        tokio::spawn(async move { keys.claim("u1", ENDPOINT, "body", &n.to_string()).await })
    });
    let mut won = 0;
    let mut replayed = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.unwrap().unwrap() {
            Claim::New => won += 1,
            Claim::Replay(stored) => replayed.push(stored),
        }
    }
    assert_eq!((won, replayed.len()), (1, 49));
    assert!(replayed.iter().all(|stored| stored.body == replayed[0].body));
}

#[tokio::test]
async fn a_key_of_a_rolled_back_transaction_is_free() {
    let keys = keys().await;
    let hash = request_hash(b"body");
    let mut tx = keys.pool.begin().await.unwrap();
    assert!(key_insert_in_tx(&mut *tx, "u1", ENDPOINT, &keys.key, &hash, &answer("1")).await.unwrap());
    tx.rollback().await.unwrap();
    assert_eq!(keys.claim("u1", ENDPOINT, "body", "2").await.unwrap(), Claim::New);
}

#[tokio::test]
async fn while_the_first_request_runs_the_second_hears_409() {
    let keys = keys().await;
    let hash = request_hash(b"body");
    let mut first = keys.pool.begin().await.unwrap();
    assert!(key_insert_in_tx(&mut *first, "u1", ENDPOINT, &keys.key, &hash, &answer("1")).await.unwrap());
    let refused = keys.claim("u1", ENDPOINT, "body", "2").await.unwrap_err();
    assert_eq!((refused.status.as_u16(), refused.code), (409, "idempotency_key_in_progress"));
    assert_eq!(refused.retry_after_s, Some(1));
    first.commit().await.unwrap();
    assert!(matches!(keys.claim("u1", ENDPOINT, "body", "2").await.unwrap(), Claim::Replay(_)));
}

#[tokio::test]
async fn another_lock_not_granted_is_another_409() {
    let keys = keys().await;
    sqlx::query("create table things (id int primary key)").execute(&keys.pool).await.unwrap();
    sqlx::query("insert into things values (1)").execute(&keys.pool).await.unwrap();
    let lock = "select id from things for update";
    let (mut one, mut two) = (keys.pool.begin().await.unwrap(), keys.pool.begin().await.unwrap());
    sqlx::query(lock).execute(&mut *one).await.unwrap();
    let refused: ApiError = sqlx::query(lock).execute(&mut *two).await.unwrap_err().into();
    assert_eq!((refused.status.as_u16(), refused.code), (409, "in_progress"));
}

#[tokio::test]
async fn one_statement_claims_and_works_or_does_nothing() {
    let keys = keys().await;
    sqlx::query("create table work (done text)").execute(&keys.pool).await.unwrap();
    for expected in [true, false] {
        let stored = answer("1");
        let won: bool = sqlx::query_scalar(
            "with claim as materialized (select idempotency_claim($1, $2, $3, $4, $5, $6::json, $7) as won),
                  worked as (insert into work select 'done' from claim where won)
             select won from claim",
        )
        .bind("u1")
        .bind(ENDPOINT)
        .bind(keys.key.as_str())
        .bind(request_hash(b"body").as_slice())
        .bind(stored.status_column())
        .bind(stored.headers_json())
        .bind(&stored.body)
        .fetch_one(&keys.pool)
        .await
        .unwrap();
        assert_eq!(won, expected);
    }
    let done: i64 = sqlx::query_scalar("select count(*) from work").fetch_one(&keys.pool).await.unwrap();
    assert_eq!(done, 1);
}

#[tokio::test]
async fn several_keys_are_claimed_at_once_each_by_the_first_that_asks() {
    let keys = keys().await;
    let claims = async |left_out: &[i32], names: &[&str]| -> Vec<bool> {
        let (stored, hash, count) = (answer("1"), request_hash(b"body"), names.len());
        sqlx::query_scalar("select idempotency_claims($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(left_out)
            .bind(vec!["u1"; count])
            .bind(vec![ENDPOINT; count])
            .bind(names)
            .bind(vec![hash.as_slice(); count])
            .bind(vec![stored.status_column(); count])
            .bind(vec![stored.headers_json(); count])
            .bind(vec![stored.body.as_slice(); count])
            .fetch_one(&keys.pool)
            .await
            .unwrap()
    };
    assert_eq!(claims(&[2], &["a", "b", "c", "c"]).await, [true, false, true, false]);
    assert_eq!(claims(&[], &["a", "b", "d"]).await, [false, true, true]);
    let taken: Vec<String> = sqlx::query_scalar("select key::text from idempotency_keys order by key")
        .fetch_all(&keys.pool)
        .await
        .unwrap();
    assert_eq!(taken, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn old_keys_are_pruned_and_young_ones_kept() {
    let keys = keys().await;
    for (scope, age) in [("old", "25 hours"), ("young", "23 hours")] {
        keys.claim(scope, ENDPOINT, "body", "1").await.unwrap();
        let aged = "update idempotency_keys set created_at = now() - $1::interval where scope = $2";
        sqlx::query(aged).bind(age).bind(scope).execute(&keys.pool).await.unwrap();
    }
    assert_eq!(keys_prune(&keys.pool).await.unwrap(), 1);
    assert_eq!(keys.claim("old", ENDPOINT, "body", "2").await.unwrap(), Claim::New);
    assert!(matches!(keys.claim("young", ENDPOINT, "body", "2").await.unwrap(), Claim::Replay(_)));
}

#[tokio::test]
async fn pruning_gives_up_a_database_that_fell_silent() {
    let keys = keys().await;
    let (switch, through) = TcpSwitch::in_front_of(&keys.database.url).await;
    let mut other = keys.pool.begin().await.unwrap();
    sqlx::query("lock table idempotency_keys").execute(&mut *other).await.unwrap();
    let pool = pool::connect(&through, 1, "test").unwrap();
    let pruning = tokio::spawn(async move { keys_prune(&pool).await });
    keys.database.locks_waited_for(1).await;
    switch.fall_silent();
    assert!(pool::is_transient(&pruning.await.unwrap().unwrap_err()));
}
