//! A small service for one test: a database, a handler that rejects on demand, the operators' API behind a real listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tokio::net::TcpListener;
use uuid::Uuid;
use waybill_host::Peers;
use waybill_host::faults::{Faults, Faulty};
use waybill_host::operator::{self, Explainer, Operated};
use waybill_http::auth::Verifier;
use waybill_http::serve::{Limits, serve};
use waybill_messaging::codec::CodecError;
use waybill_messaging::consumer::{Batch, BatchHandler};
use waybill_messaging::envelope::{Cause, Envelope};
use waybill_messaging::headers;
use waybill_messaging::message::Message;
use waybill_messaging::record::Record;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, InboxProcessor, Verdict};
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::{TestDatabase, Tokens};

/// The operator who calls.
pub(crate) const OPERATOR: &str = "olga";

/// Keeps each message's text in the table `things`; a text that begins with `reject` is rejected.
pub(crate) struct Things;

impl Handler for Things {
    type Message = Vec<u8>;

    fn group(&self) -> &str {
        "things"
    }

    fn decode(&self, _kind: &str, payload: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        match payload.starts_with(b"unreadable") {
            true => Err(CodecError::NotAFrame { what: "it says so" }),
            false => Ok(Some(payload.to_vec())),
        }
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Vec<u8>>],
        _out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let mut verdicts = Vec::new();
        for Delivery { envelope, message } in deliveries {
            let text = String::from_utf8_lossy(message).into_owned();
            if text.starts_with("reject") {
                verdicts.push(Verdict::Reject { class: "unwanted", why: format!("nobody wants \"{text}\"") });
                continue;
            }
            sqlx::query("insert into things (key, body) values ($1, $2)")
                .bind(&envelope.subject)
                .bind(text)
                .execute(&mut *conn)
                .await?;
            verdicts.push(Verdict::Done);
        }
        Ok(verdicts)
    }
}

/// The service.
pub(crate) struct Desk {
    pub(crate) database: TestDatabase,
    pub(crate) tokens: Tokens,
    pub(crate) processor: InboxProcessor<Faulty<Things>>,
    url: String,
    client: reqwest::Client,
    offset: AtomicI64,
    shutdown: Shutdown,
}

impl Desk {
    pub(crate) async fn new(hint: &str) -> Self {
        Self::failing(hint, Faults::default()).await
    }

    /// With failures on purpose.
    pub(crate) async fn failing(hint: &str, faults: Faults) -> Self {
        Self::start(hint, faults, Peers::default()).await
    }

    /// With other services to ask for stories.
    pub(crate) async fn with_peers(hint: &str, peers: Peers) -> Self {
        Self::start(hint, Faults::default(), peers).await
    }

    async fn start(hint: &str, faults: Faults, peers: Peers) -> Self {
        let database = TestDatabase::create(hint).await;
        database.migrate(&[&waybill_outbox::MIGRATIONS, &waybill_http::MIGRATIONS]).await;
        sqlx::query("create table things (key text, body text)").execute(&database.pool).await.unwrap();
        let pool = database.pool.clone();
        let processor = InboxProcessor::new(pool.clone(), "", Faulty { handler: Things, faults });
        let tokens = Tokens::new();
        let jwks = tokens.jwks_path().to_str().unwrap().to_owned();
        let verifier = Verifier::load(&jwks, Tokens::ISSUER, Tokens::AUDIENCE).await.unwrap();
        let explainer = Explainer::new(peers, "127.0.0.1:1");
        let operated =
            Operated { service: "things", pool, dry_run: processor.dry_run(), sagas: None, explainer };
        let router = operator::router(operated, Arc::new(verifier));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/operator/v1", listener.local_addr().unwrap());
        let shutdown = Shutdown::manual();
        tokio::spawn(serve(listener, router, shutdown.clone(), Limits::default()));
        let (client, offset) = (reqwest::Client::new(), AtomicI64::new(0));
        Self { database, tokens, processor, url, client, offset, shutdown }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// Hands these texts to the group as one batch, each under its key; returns the message ids.
    pub(crate) async fn hear(&self, texts: &[(&str, &str)]) -> Vec<Uuid> {
        let records: Vec<(Uuid, Record)> = texts.iter().map(|(key, text)| self.record(key, text)).collect();
        let (ids, records) = records.into_iter().unzip();
        self.processor.handle(&Batch { records }).await.expect("no infrastructure failed");
        ids
    }

    /// The same with one text under a key that may be no text.
    pub(crate) async fn hear_under(&self, key: &'static [u8], text: &str) {
        let (_, record) = self.record("no text", text);
        let records = vec![Record { key: Some(Bytes::from_static(key)), ..record }];
        self.processor.handle(&Batch { records }).await.expect("no infrastructure failed");
    }

    fn record(&self, key: &str, text: &str) -> (Uuid, Record) {
        let id = Uuid::now_v7();
        let cause = Cause { correlation_id: id, causation_id: None, trace: None };
        let envelope = Envelope {
            id,
            source: "/waybill/test".to_owned(),
            kind: "ThingSaid".to_owned(),
            time: chrono::Utc::now(),
            subject: key.to_owned(),
            cause,
            sequence: 1,
        };
        let headers = headers::encode(&envelope).into_iter();
        let record = Record {
            topic: "things.events".to_owned(),
            partition: 0,
            offset: self.offset.fetch_add(1, Ordering::Relaxed),
            timestamp_ms: None,
            key: Some(Bytes::from(key.to_owned())),
            headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
            payload: Some(Bytes::from(text.to_owned())),
        };
        (id, record)
    }

    /// A request without a token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// A request of the operator.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.tokens.token(OPERATOR, "operator"))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    /// The items of a list.
    pub(crate) async fn items(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{body}");
        body["items"].as_array().unwrap().clone()
    }

    pub(crate) async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(self.pool()).await.unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// Status and body.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}")))
}
