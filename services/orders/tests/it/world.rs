//! A world for one test: its database, the router behind a real listener, tokens, and the consumer's handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::net::TcpListener;
use uuid::Uuid;
use waybill_events::CustomerId;
use waybill_http::auth::Verifier;
use waybill_http::serve::{Limits, serve};
use waybill_messaging::consumer::{Batch, BatchHandler};
use waybill_messaging::headers;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_orders::commands::Context;
use waybill_orders::commands::placements::Placements;
use waybill_orders::consumers::orders_group::OrdersGroup;
use waybill_orders::http::{self, AppState};
use waybill_orders::sagas::{Patience, Sagas};
use waybill_orders::service;
use waybill_outbox::inbox::InboxProcessor;
use waybill_runtime::clock::SystemClock;
use waybill_runtime::config::{PoolBounds, Postgres};
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::Pools;
use waybill_testkit::{TcpSwitch, TestDatabase, Tokens, eventually};

/// Longer than anything takes on a busy machine, shorter than the time limit of a statement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// A database with every table of this service.
pub(crate) async fn database(hint: &str) -> TestDatabase {
    let database = TestDatabase::create(hint).await;
    database.migrate(&service::MIGRATIONS).await;
    database
}

/// The service without Kafka.
pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) tokens: Tokens,
    pub(crate) customer: CustomerId,
    processor: InboxProcessor<OrdersGroup>,
    url: String,
    offset: AtomicI64,
    client: reqwest::Client,
    shutdown: Shutdown,
    pub(crate) database: TestDatabase,
}

/// An answer, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    pub(crate) replayed: bool,
    pub(crate) retry_after: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// The id in the order body.
    pub(crate) fn order(&self) -> Uuid {
        self.json()["id"].as_str().unwrap_or_else(|| panic!("no order: {self:?}")).parse().unwrap()
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
        Self::patient(hint, Patience::default()).await
    }

    pub(crate) async fn patient(hint: &str, patience: Patience) -> Self {
        Self::special(hint, patience, PoolBounds::default()).await
    }

    /// With pools of these sizes.
    pub(crate) async fn bounded(hint: &str, bounds: PoolBounds) -> Self {
        Self::special(hint, Patience::default(), bounds).await
    }

    /// One that reaches its database through a switch.
    pub(crate) async fn switched(hint: &str, bounds: PoolBounds) -> (Self, TcpSwitch) {
        let database = database(hint).await;
        let (switch, url) = TcpSwitch::in_front_of(&database.url).await;
        (Self::on(database, Postgres { url, bounds }, Patience::default()).await, switch)
    }

    async fn special(hint: &str, patience: Patience, bounds: PoolBounds) -> Self {
        let database = database(hint).await;
        let postgres = Postgres { url: database.url.clone(), bounds };
        Self::on(database, postgres, patience).await
    }

    async fn on(database: TestDatabase, postgres: Postgres, patience: Patience) -> Self {
        let bounds = postgres.bounds;
        let Pools { commands, statements, reads, background, .. } =
            Pools::connect(&postgres, "orders-test").unwrap();
        let context = Context {
            pool: commands,
            placements: Placements::new(statements.clone(), bounds.writes),
            statements,
            sagas: Sagas::new(patience),
            clock: Arc::new(SystemClock),
            topic_prefix: "".into(),
            prices: Arc::default(),
        };
        let tokens = Tokens::new();
        let jwks = tokens.jwks_path().to_str().unwrap().to_owned();
        let verifier = Verifier::load(&jwks, Tokens::ISSUER, Tokens::AUDIENCE).await.unwrap();
        let router = http::router(AppState { context: context.clone(), reads, verifier: Arc::new(verifier) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::manual();
        tokio::spawn(serve(listener, router, shutdown.clone(), Limits::default()));
        let working = Context { pool: background.clone(), ..context.clone() };
        let processor = InboxProcessor::new(background, "", OrdersGroup::new(working));
        let world = Self {
            context,
            tokens,
            customer: CustomerId::generate(),
            processor,
            url,
            offset: AtomicI64::new(0),
            client: reqwest::Client::new(),
            shutdown,
            database,
        };
        world.priced(&[("TEA", 899, "EUR"), ("CUP", 1250, "EUR")]).await;
        world
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.context.pool
    }

    /// Puts products into the catalogue as it would be after their first events.
    pub(crate) async fn priced(&self, prices: &[(&str, i64, &str)]) {
        for (sku, minor, currency) in prices {
            sqlx::query(
                "insert into catalogue (sku, unit_price_minor, currency, version) values ($1, $2, $3, 1)",
            )
            .bind(sku)
            .bind(minor)
            .bind(currency)
            .execute(self.pool())
            .await
            .unwrap();
        }
    }

    pub(crate) fn anonymous(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}/api/v1{path}", self.url))
    }

    pub(crate) fn request(
        &self,
        sub: &str,
        role: &str,
        method: Method,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.tokens.token(sub, role))
    }

    /// As this world's customer.
    pub(crate) fn customers(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(&self.customer.to_string(), "customer", method, path)
    }

    pub(crate) async fn post(&self, key: &str, body: &Value) -> Answer {
        send(self.customers(Method::POST, "/orders").header("Idempotency-Key", key).json(body)).await
    }

    /// Places the usual order and returns its id.
    pub(crate) async fn place(&self) -> Uuid {
        let answer = self.post(&new_key(), &usual_order()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.order()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.customers(Method::GET, path)).await
    }

    pub(crate) async fn cancel(&self, order: Uuid) -> Answer {
        send(self.customers(Method::POST, &format!("/orders/{order}/cancel"))).await
    }

    /// Status, reason and version of an order, as its customer reads them.
    pub(crate) async fn standing(&self, order: Uuid) -> (String, Option<String>, i64) {
        let body = self.get(&format!("/orders/{order}")).await.json();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        (text("status").unwrap(), text("reason"), body["version"].as_i64().unwrap())
    }

    /// Hands these messages to the consumer group as one batch, and waits until its transaction committed.
    pub(crate) async fn hear(&self, messages: &[Message]) {
        let count = i64::try_from(messages.len()).unwrap();
        let first = self.offset.fetch_add(count, Ordering::Relaxed);
        let records = messages.iter().zip(first..).map(|(message, offset)| record(message, offset)).collect();
        self.processor.handle(&Batch { records }).await.expect("no infrastructure failed");
    }

    /// Makes every `insert` or `update` of an order wait in the middle of its statement.
    pub(crate) async fn gate_close(&self, event: &str) {
        let trigger = format!(
            "create trigger wait_at_gate before {event} on orders for each row execute function wait_at_gate()"
        );
        for statement in [
            "create table gate as select 1",
            "create function wait_at_gate() returns trigger language plpgsql as $$ begin
                 while exists (select from gate) loop perform pg_sleep(0.02); end loop;
                 return new;
             end $$",
            &trigger,
        ] {
            sqlx::query(AssertSqlSafe(statement.to_owned())).execute(self.pool()).await.unwrap();
        }
    }

    /// Sends a request, hangs up while it waits at the gate, then opens the gate.
    pub(crate) async fn hang_up_at_gate(&self, request: reqwest::RequestBuilder) {
        let waiting = tokio::spawn(request.send());
        self.at_gate(1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled(), "no answer came");
        self.gate_open().await;
    }

    /// Until so many statements wait at the gate.
    pub(crate) async fn at_gate(&self, count: i64) {
        let waits = "select count(*) from pg_stat_activity
                     where datname = current_database() and wait_event = 'PgSleep'";
        let waiting =
            async || -> i64 { sqlx::query_scalar(waits).fetch_one(&self.database.pool).await.unwrap() };
        eventually(PATIENCE, async || (waiting().await >= count).then_some(())).await;
    }

    pub(crate) async fn gate_open(&self) {
        sqlx::query("delete from gate").execute(&self.database.pool).await.unwrap();
    }

    pub(crate) async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(self.pool()).await.unwrap()
    }

    /// What was said on `topic` about a key: types in the order they were said.
    pub(crate) async fn said(&self, topic: &str, key: Uuid) -> Vec<String> {
        sqlx::query_scalar("select headers->>'ce_type' from outbox where topic = $1 and key = $2 order by id")
            .bind(topic)
            .bind(key.to_string().as_bytes())
            .fetch_all(self.pool())
            .await
            .unwrap()
    }

    /// Every topic and key has `ce_sequence` 1..n in the order of the outbox, and nothing was dead-lettered.
    pub(crate) async fn assert_sound(&self) {
        let wrong: Vec<String> = sqlx::query_scalar(
            "select topic || ' ' || convert_from(key, 'UTF8') || ' ' || said || ' instead of ' || expected
             from (select topic, key, headers->>'ce_sequence' as said,
                          row_number() over (partition by topic, key order by id) as expected from outbox) s
             where said <> expected::text",
        )
        .fetch_all(self.pool())
        .await
        .unwrap();
        assert!(wrong.is_empty(), "ce_sequence is not 1..n: {wrong:?}");
        let versions = "select count(*) from orders o where version <> (
            select count(*) from outbox where topic = 'orders.events' and key = convert_to(o.id::text, 'UTF8'))";
        assert_eq!(self.count(versions).await, 0, "an order has not one event per version");
        let dead: Vec<String> = sqlx::query_scalar("select error_message from dead_letters")
            .fetch_all(self.pool())
            .await
            .unwrap();
        assert!(dead.is_empty(), "dead letters: {dead:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// Two teas and a cup: 30.48 EUR.
pub(crate) fn usual_order() -> Value {
    json!({
        "lines": [{"sku": "TEA", "quantity": 2}, {"sku": "CUP", "quantity": 1}],
        "currency": "EUR",
        "payment_token": "tok_approve",
    })
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
        retry_after: header("retry-after"),
        bytes: response.bytes().await.unwrap().to_vec(),
    }
}

/// The message as the consumer would have it.
pub(crate) fn record(message: &Message, offset: i64) -> Record {
    let headers = headers::encode(&message.envelope).into_iter();
    Record {
        topic: message.topic.clone(),
        partition: 0,
        offset,
        timestamp_ms: None,
        key: Some(Bytes::from(message.key.clone())),
        headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
        payload: Some(Bytes::from(message.payload.clone())),
    }
}
