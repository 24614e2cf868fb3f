//! Appending: in order, with the prefix, all or nothing.

use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::PgQueryResult;
use uuid::Uuid;
use waybill_messaging::message::Message;
use waybill_outbox::append::{self, AppendArrays, Appender, LimitError};

use crate::ledger;

/// Message id, topic, key, headers, payload.
type Row = (Uuid, String, Vec<u8>, String, Vec<u8>);

fn message(key: &str, sequence: i64, payload: &[u8]) -> Message {
    let envelope = ledger::envelope(key, sequence);
    Message { topic: ledger::TOPIC.to_owned(), key: key.to_owned(), envelope, payload: payload.to_vec() }
}

#[tokio::test]
async fn messages_are_appended_in_order_as_they_are() {
    let database = ledger::database("append").await;
    let messages: Vec<_> =
        (1..=50).map(|n| message(&format!("key-{}", n % 3), n, &[0, n as u8, 0xff])).collect();
    let mut tx = database.pool.begin().await.unwrap();
    Appender::new("t1.").append(&mut tx, &messages).await.unwrap();
    Appender::new("t1.").append(&mut tx, &[]).await.unwrap();
    tx.commit().await.unwrap();
    let rows: Vec<Row> =
        sqlx::query_as("select message_id, topic, key, headers::text, payload from outbox order by id")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let expected: Vec<_> = messages
        .iter()
        .map(|m| {
            let headers = waybill_messaging::headers::to_json(&m.envelope);
            (
                m.envelope.id,
                "t1.orders.events".to_owned(),
                m.key.clone().into_bytes(),
                headers,
                m.payload.clone(),
            )
        })
        .collect();
    assert_eq!(rows, expected, "headers byte for byte, in order");
    assert!(serde_json::from_str::<Value>(&rows[0].3).unwrap().is_object());
}

#[tokio::test]
async fn a_rolled_back_transaction_says_nothing() {
    let database = ledger::database("rollback").await;
    let mut tx = database.pool.begin().await.unwrap();
    append::append(&mut tx, "", &[message("a", 1, b"x")]).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(ledger::count(&database.pool, "outbox").await, 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused_here_and_by_the_table() {
    let database = ledger::database("too_large").await;
    let mut conn = database.pool.acquire().await.unwrap();
    let largest = message("a", 1, &vec![1; append::PAYLOAD_BYTES_MAX]);
    let larger = message("b", 1, &vec![1; append::PAYLOAD_BYTES_MAX + 1]);
    append::append(&mut conn, "", std::slice::from_ref(&largest)).await.unwrap();
    let error = append::append(&mut conn, "", &[largest, larger.clone()]).await.unwrap_err();
    let sqlx::Error::Encode(cause) = error else { panic!("{error}") };
    assert_eq!(cause.downcast::<LimitError>().unwrap().part, "payload");
    assert_eq!(ledger::count(&database.pool, "outbox").await, 1, "all or nothing");

    let error = written(&mut conn, larger).await.unwrap_err();
    assert!(error.as_database_error().unwrap().is_check_violation(), "{error}");
}

#[tokio::test]
async fn retry_and_dead_letter_topics_take_a_mebibyte() {
    let database = ledger::database("carried").await;
    let mut conn = database.pool.acquire().await.unwrap();
    let mut on = async |topic: &str, bytes: usize| {
        let message = Message { topic: topic.to_owned(), ..message("a", 1, &vec![1; bytes]) };
        written(&mut conn, message).await.is_ok()
    };
    for topic in ["orders.events.billing.dlq", "orders.events.billing.retry.12"] {
        assert!(on(topic, append::CARRIED_PAYLOAD_BYTES_MAX).await, "{topic}");
        assert!(!on(topic, append::CARRIED_PAYLOAD_BYTES_MAX + 1).await, "{topic}");
    }
    for topic in ["orders.events", "orders.dlq.events", "orders.retry.x", "orders.retry.1.events"] {
        assert!(on(topic, append::PAYLOAD_BYTES_MAX).await, "{topic}");
        assert!(!on(topic, append::PAYLOAD_BYTES_MAX + 1).await, "{topic}");
    }
}

/// Past the checks of `append`.
async fn written(conn: &mut PgConnection, message: Message) -> Result<PgQueryResult, sqlx::Error> {
    let arrays = AppendArrays::new("", &[message]);
    sqlx::query("select outbox_append($1, $2, $3, $4, $5)")
        .bind(&arrays.message_ids)
        .bind(&arrays.topics)
        .bind(&arrays.keys)
        .bind(&arrays.headers)
        .bind(&arrays.payloads)
        .execute(conn)
        .await
}
