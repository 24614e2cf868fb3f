//! A world for one test: its database with every table, the router behind a real listener, tokens, a client.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::PgPool;
use tokio::net::TcpListener;
use uuid::Uuid;
use waybill_http::auth::Verifier;
use waybill_http::serve::{Limits, serve};
use waybill_inventory::commands::Context;
use waybill_inventory::http::{self, AppState};
use waybill_inventory::store;
use waybill_runtime::clock::SystemClock;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::{self, Statements};
use waybill_testkit::{TestDatabase, Tokens};

/// Of each pool.
const CONNECTIONS_MAX: u32 = 4;

/// A database with the tables of every crate this service uses.
pub(crate) async fn database(hint: &str) -> TestDatabase {
    let database = TestDatabase::create(hint).await;
    database.migrate(&[&waybill_outbox::MIGRATIONS, &waybill_http::MIGRATIONS, &store::MIGRATIONS]).await;
    database
}

/// The service's HTTP side, running.
pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) tokens: Tokens,
    pub(crate) url: String,
    client: reqwest::Client,
    shutdown: Shutdown,
}

/// An answer, read.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    pub(crate) replayed: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// Status, code and the paths at fault.
    pub(crate) fn refusal(&self) -> (u16, String, Vec<String>) {
        let body = self.json();
        let details = body["error"]["details"].as_array().unwrap_or_else(|| panic!("no problem: {body}"));
        let paths = details.iter().map(|detail| detail["path"].as_str().unwrap().to_owned()).collect();
        (self.status.as_u16(), body["error"]["code"].as_str().unwrap().to_owned(), paths)
    }
}

impl World {
    pub(crate) async fn new(hint: &str) -> Self {
        let database = database(hint).await;
        let pool = database.pool.clone();
        Self::on(database, pool).await
    }

    /// With the limits that the service's own sessions have.
    pub(crate) async fn limited(hint: &str) -> Self {
        let database = database(hint).await;
        let pool = pool::connect(&database.url, CONNECTIONS_MAX, "inventory-test").unwrap();
        Self::on(database, pool).await
    }

    async fn on(database: TestDatabase, pool: PgPool) -> Self {
        let tokens = Tokens::new();
        let jwks = tokens.jwks_path().to_str().unwrap().to_owned();
        let verifier = Verifier::load(&jwks, Tokens::ISSUER, Tokens::AUDIENCE).await.unwrap();
        let context = Context { pool, topic_prefix: "".into(), clock: Arc::new(SystemClock) };
        let reads = Statements::connect(&database.url, CONNECTIONS_MAX, "inventory-test").unwrap();
        let state = AppState { context, reads, verifier: Arc::new(verifier) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::manual();
        tokio::spawn(serve(listener, http::router(state), shutdown.clone(), Limits::default()));
        Self { database, tokens, url, client: reqwest::Client::new(), shutdown }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// A request with a token of this role.
    pub(crate) fn request(&self, role: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        let token = self.tokens.token("keeper", role);
        self.anonymous(method, path).bearer_auth(token)
    }

    pub(crate) fn anonymous(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}/api/v1{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request("customer", Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.write(Method::POST, path, key, body).await
    }

    pub(crate) async fn put(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.write(Method::PUT, path, key, body).await
    }

    pub(crate) async fn write(&self, method: Method, path: &str, key: &str, body: &Value) -> Answer {
        send(self.request("admin", method, path).header("Idempotency-Key", key).json(body)).await
    }

    /// Adds a product with stock.
    pub(crate) async fn stocked(&self, sku: &str, pieces: i64) {
        let product =
            serde_json::json!({"sku": sku, "name": sku, "unit_price_minor": 100, "currency": "EUR"});
        assert_eq!(self.post("/products", &new_key(), &product).await.status, 201);
        let receipt = serde_json::json!({"quantity": pieces});
        assert_eq!(self.post(&format!("/stock/{sku}/receipts"), &new_key(), &receipt).await.status, 201);
    }

    /// Everything that a refused request must leave as it is.
    pub(crate) async fn rows(&self) -> (i64, i64, i64, i64, i64, i64) {
        sqlx::query_as(
            "select (select count(*) from products), (select coalesce(sum(version), 0)::bigint from products),
                    (select coalesce(sum(available), 0)::bigint from stock), (select count(*) from stock_ledger),
                    (select count(*) from outbox), (select count(*) from idempotency_keys)",
        )
        .fetch_one(self.pool())
        .await
        .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

pub(crate) fn new_key() -> String {
    Uuid::now_v7().to_string()
}

pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    Answer {
        status: response.status(),
        location: header("location"),
        replayed: header("idempotency-replayed").as_deref() == Some("true"),
        bytes: response.bytes().await.unwrap().to_vec(),
    }
}

/// What was said on this topic about a key: type and sequence, in the order it was said.
pub(crate) async fn said(pool: &PgPool, topic: &str, key: &str) -> Vec<(String, i64)> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select headers->>'ce_type', headers->>'ce_sequence' from outbox
         where topic = $1 and key = $2 order by id",
    )
    .bind(topic)
    .bind(key.as_bytes())
    .fetch_all(pool)
    .await
    .unwrap();
    rows.into_iter().map(|(kind, sequence)| (kind, sequence.parse().unwrap())).collect()
}
