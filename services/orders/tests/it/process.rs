//! The program itself: a reply in Kafka moves an order, servers away at start, bad configuration.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use uuid::Uuid;
use waybill_events::inventory::ProductAdded;
use waybill_events::{CustomerId, topic, topics};
use waybill_messaging::config as kafka;
use waybill_messaging::envelope::Cause;
use waybill_messaging::headers;
use waybill_messaging::message::{Draft, Message};
use waybill_messaging::topics::TopicAdmin;
use waybill_testkit::process::{Process, ProcessBuilder};
use waybill_testkit::{TestDatabase, TestTopics, Tokens, eventually, kafka_bootstrap};

use crate::participants::Say;
use crate::world::database;

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn orders(database: &TestDatabase, tokens: &Tokens, prefix: &str) -> ProcessBuilder {
    Process::named("waybill-orders")
        .env("DATABASE_URL", &database.url)
        .env("WAYBILL_JWKS", tokens.jwks_path().to_str().unwrap())
        .env("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap())
        .env("WAYBILL_TOPIC_PREFIX", prefix)
}

async fn produce(topics: &TestTopics, message: &Message) {
    let headers = headers::encode(&message.envelope);
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    topics.produce(&message.topic, Some(message.key.as_bytes()), &headers, Some(&message.payload)).await;
}

fn added(sku: &str) -> Message {
    let currency = "EUR".parse().unwrap();
    let event =
        ProductAdded { sku: sku.parse().unwrap(), name: sku.to_owned(), unit_price_minor: 5, currency };
    let cause = Cause { correlation_id: Uuid::now_v7(), causation_id: None, trace: None };
    let draft = Draft::new(topic::INVENTORY_EVENTS, sku, &event).unwrap();
    draft.finish(Uuid::now_v7(), chrono::Utc::now(), "/waybill/inventory", 1, cause)
}

#[tokio::test]
async fn prices_and_replies_in_kafka_carry_an_order_to_confirmed() {
    let database = database("process_slice").await;
    let (topics, tokens) = (TestTopics::new(), Tokens::new());
    let admin = TopicAdmin::new(&kafka::admin(&kafka_bootstrap(), "test"), &topics.prefix).unwrap();
    let manifest = topics::manifest_parsed().unwrap();
    admin.apply(&manifest, Some(1)).await.unwrap();
    topics.adopt(manifest.topics().iter().map(|topic| topic.name.as_str()));
    let mut process = orders(&database, &tokens, &topics.prefix).spawn();
    process.wait_ready(PATIENCE).await;
    produce(&topics, &added("TEA")).await;

    let (client, token) = (Client::new(), tokens.token(&CustomerId::generate().to_string(), "customer"));
    let url = format!("{}/api/v1/orders", process.url);
    let body =
        json!({"lines": [{"sku": "TEA", "quantity": 3}], "currency": "EUR", "payment_token": "tok_approve"});
    // 422 unknown_sku until the price has come; 503 when the machine is too busy.
    let placed: Value = eventually(PATIENCE, async || {
        let request = client.post(&url).bearer_auth(&token).header("Idempotency-Key", "the-only-one");
        let answer = request.json(&body).send().await.unwrap();
        match answer.status().as_u16() {
            202 => Some(answer.json().await.unwrap()),
            status => {
                assert!([422, 503].contains(&status), "{status}");
                None
            }
        }
    })
    .await;
    assert_eq!(placed["total_minor"], 15);
    let order: Uuid = placed["id"].as_str().unwrap().parse().unwrap();
    for say in [Say::Reserved, Say::Authorized, Say::Captured, Say::Committed] {
        // Each reply after the command it answers: two topics have no order between them.
        let before = log_length(&database, order).await;
        produce(&topics, &say.of(order)).await;
        eventually(PATIENCE, async || (log_length(&database, order).await > before).then_some(())).await;
    }
    let read: Value =
        client.get(format!("{url}/{order}")).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    assert_eq!((&read["status"], &read["version"]), (&json!("CONFIRMED"), &json!(2)));
    let unprefixed = "select count(*) from outbox where not starts_with(topic, $1)";
    let unprefixed: i64 =
        sqlx::query_scalar(unprefixed).bind(&topics.prefix).fetch_one(&database.pool).await.unwrap();
    assert_eq!(unprefixed, 0);
    assert_eq!(process.terminate().await, Some(0), "it drains and ends well:\n{}", process.output());
}

async fn log_length(database: &TestDatabase, order: Uuid) -> i64 {
    let length = sqlx::query_scalar("select count(*) from saga_log where key = $1").bind(order);
    length.fetch_one(&database.pool).await.unwrap()
}

#[tokio::test]
async fn servers_may_be_away_at_the_start() {
    let (database, tokens) = (database("process_away").await, Tokens::new());
    let mut process = orders(&database, &tokens, "nobody.made.these.")
        .env("DATABASE_URL", "postgres://postgres@127.0.0.1:1/nowhere")
        .spawn();
    process.wait_output("waiting for Postgres", PATIENCE).await;
    let client = Client::new();
    let get = async |path: &str| client.get(format!("{}{path}", process.url)).send().await.unwrap();
    assert_eq!(get("/health").await.status(), 200);
    let ready = get("/ready").await;
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("waiting for Postgres"));
    assert_eq!(get("/api/v1/orders").await.status(), 503);
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test]
async fn every_mistake_in_the_configuration_is_named_at_once() {
    let mut process = Process::named("waybill-orders")
        .env("WAYBILL_HTTP_ADDR", "8083")
        .env("WAYBILL_LOG_FORMAT", "xml")
        .env("WAYBILL_ORDERS_STEP_DEADLINE_MS", "soon")
        .env("WAYBILL_OPERATOR_ADDR", "9083")
        .env("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "0")
        .env("WAYBILL_RETRY_DELAYS_MS", "1,2,3,4")
        .env("WAYBILL_FAULTS", "everything")
        .spawn();
    assert_eq!(process.wait_exit(PATIENCE).await, Some(2));
    let output = process.output();
    let all = [
        "DATABASE_URL",
        "WAYBILL_JWKS",
        "WAYBILL_HTTP_ADDR",
        "WAYBILL_LOG_FORMAT",
        "WAYBILL_ORDERS_STEP_DEADLINE_MS",
        "WAYBILL_OPERATOR_ADDR",
        "WAYBILL_OUTBOX_UNPUBLISHED_MAX",
        "WAYBILL_RETRY_DELAYS_MS",
        "WAYBILL_FAULTS",
    ];
    for variable in all {
        assert!(output.contains(variable), "{variable} is not named:\n{output}");
    }
}
