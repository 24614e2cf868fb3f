//! The program itself: from a command in Kafka to the reply in the outbox, servers away at start, bad configuration.

use std::time::Duration;

use uuid::Uuid;
use waybill_events::{OrderId, topic, topics};
use waybill_messaging::config as kafka;
use waybill_messaging::headers;
use waybill_messaging::message::Message;
use waybill_messaging::topics::TopicAdmin;
use waybill_testkit::process::{Process, ProcessBuilder};
use waybill_testkit::{TestDatabase, TestTopics, Tokens, eventually, kafka_bootstrap};

use crate::desk::Say;
use crate::world::{database, said};

const PATIENCE: Duration = Duration::from_secs(120);

fn inventory(database: &TestDatabase, tokens: &Tokens, prefix: &str) -> ProcessBuilder {
    Process::named("waybill-inventory")
        .env("DATABASE_URL", &database.url)
        .env("WAYBILL_JWKS", tokens.jwks_path().to_str().unwrap())
        .env("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap())
        .env("WAYBILL_TOPIC_PREFIX", prefix)
}

async fn produce(topics: &TestTopics, message: &Message) {
    let headers = headers::encode(&message.envelope);
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    topics
        .produce(topic::INVENTORY_COMMANDS, Some(message.key.as_bytes()), &headers, Some(&message.payload))
        .await;
}

#[tokio::test]
async fn from_a_command_in_kafka_to_the_reply_in_the_outbox() {
    let database = database("process_slice").await;
    let (topics, tokens) = (TestTopics::new(), Tokens::new());
    let admin = TopicAdmin::new(&kafka::admin(&kafka_bootstrap(), "test"), &topics.prefix).unwrap();
    let manifest = topics::manifest_parsed().unwrap();
    admin.apply(&manifest, Some(1)).await.unwrap();
    topics.adopt(manifest.topics().iter().map(|topic| topic.name.as_str()));
    let mut inventory = inventory(&database, &tokens, &topics.prefix).spawn();
    inventory.wait_ready(PATIENCE).await;
    let client = reqwest::Client::new();
    let product =
        serde_json::json!({"sku": "TEA-1", "name": "Tea", "unit_price_minor": 1, "currency": "EUR"});
    for (path, body) in [("products", product), ("stock/TEA-1/receipts", serde_json::json!({"quantity": 5}))]
    {
        let request = client.post(format!("{}/api/v1/{path}", inventory.url)).json(&body);
        let token = tokens.token("keeper", "admin");
        let answer =
            request.bearer_auth(token).header("Idempotency-Key", Uuid::now_v7().to_string()).send().await;
        assert_eq!(answer.unwrap().status(), 201, "{path}");
    }

    let order = OrderId::generate();
    let reserve = Say::Reserve(vec![("TEA-1", 2)]).to(order);
    produce(&topics, &reserve).await;
    produce(&topics, &reserve).await;
    let key = order.to_string();
    topics.produce(topic::INVENTORY_COMMANDS, Some(key.as_bytes()), &[], Some(b"not a message")).await;
    produce(&topics, &Say::Commit.to(order)).await;
    let replies = eventually(PATIENCE, async || {
        let replies = said_with_prefix(&database, &topics.prefix, &key).await;
        (replies.len() >= 2).then_some(replies)
    });
    assert_eq!(replies.await, [("StockReserved".to_owned(), 1), ("StockCommitted".to_owned(), 2)]);
    let classes: Vec<String> =
        sqlx::query_scalar("select error_class from dead_letters").fetch_all(&database.pool).await.unwrap();
    assert_eq!(classes, ["headers"]);
    let metrics =
        client.get(format!("{}/metrics", inventory.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"inventory_commands_total{answer="reserved",command="ReserveStock"} 1"#));
    assert_eq!(inventory.terminate().await, Some(0), "it drains and ends well:\n{}", inventory.output());
}

async fn said_with_prefix(database: &TestDatabase, prefix: &str, key: &str) -> Vec<(String, i64)> {
    let foreign = "select count(*) from outbox where not starts_with(topic, $1)";
    let foreign: i64 = sqlx::query_scalar(foreign).bind(prefix).fetch_one(&database.pool).await.unwrap();
    assert_eq!(foreign, 0, "every message is for a topic under the prefix");
    said(&database.pool, &format!("{prefix}inventory.events"), key).await
}

#[tokio::test]
async fn servers_may_be_away_at_the_start() {
    let (database, tokens) = (database("process_away").await, Tokens::new());
    let mut inventory = inventory(&database, &tokens, "nobody.made.these.")
        .env("DATABASE_URL", "postgres://postgres@127.0.0.1:1/nowhere")
        .spawn();
    inventory.wait_output("waiting for Postgres", PATIENCE).await;
    let client = reqwest::Client::new();
    let get = async |path: &str| client.get(format!("{}{path}", inventory.url)).send().await.unwrap();
    assert_eq!(get("/health").await.status(), 200);
    let ready = get("/ready").await;
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("waiting for Postgres"));
    assert_eq!(get("/api/v1/products").await.status(), 503);
    assert_eq!(inventory.terminate().await, Some(0));
}

#[tokio::test]
async fn missing_topics_are_named_and_waited_for() {
    let (database, tokens) = (database("process_topics").await, Tokens::new());
    let topics = TestTopics::new();
    let mut inventory = inventory(&database, &tokens, &topics.prefix).spawn();
    inventory.wait_output(&format!("{}inventory.commands", topics.prefix), PATIENCE).await;
    assert_eq!(inventory.terminate().await, Some(0));
}

#[tokio::test]
async fn every_mistake_in_the_configuration_is_named_at_once() {
    let mut inventory = Process::named("waybill-inventory")
        .env("WAYBILL_HTTP_ADDR", "8084")
        .env("WAYBILL_DATABASE_READS_MAX", "many")
        .env("WAYBILL_LOG_FORMAT", "xml")
        .spawn();
    assert_eq!(inventory.wait_exit(PATIENCE).await, Some(2));
    for variable in [
        "DATABASE_URL",
        "WAYBILL_JWKS",
        "WAYBILL_HTTP_ADDR",
        "WAYBILL_DATABASE_READS_MAX",
        "WAYBILL_LOG_FORMAT",
    ] {
        inventory.wait_output(variable, PATIENCE).await;
    }
}
