//! Failures on purpose go through the real retry and dead letter paths.

use bytes::Bytes;
use serde_json::Value;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_messaging::record::Record;

use crate::desk::Desk;

/// The heads that lie in the outbox for a retry topic, as the retry consumer would have them.
async fn heads(desk: &Desk) -> Vec<Record> {
    let rows: Vec<(String, Vec<u8>, Value, Vec<u8>)> = sqlx::query_as(
        "select topic, key, headers, payload from outbox where topic like '%.retry.%' order by id",
    )
    .fetch_all(desk.pool())
    .await
    .unwrap();
    let headers = |headers: &Value| {
        let all = headers.as_object().unwrap().iter();
        all.map(|(name, value)| (name.clone(), value.as_str().unwrap().as_bytes().to_vec())).collect()
    };
    let rows = rows.into_iter().zip(0..);
    rows.map(|((topic, key, named, payload), offset)| Record {
        topic,
        partition: 0,
        offset,
        timestamp_ms: None,
        key: Some(Bytes::from(key)),
        headers: headers(&named),
        payload: Some(Bytes::from(payload)),
    })
    .collect()
}

#[tokio::test]
async fn a_message_fails_as_often_as_it_is_told_and_its_key_keeps_its_order() {
    let desk = Desk::failing("host_faults_retry", "ThingSaid:retry:1".parse().unwrap()).await;
    desk.hear(&[("a", "first"), ("a", "second")]).await;
    assert_eq!(desk.count("select count(*) from things").await, 0);
    assert_eq!(desk.count("select count(*) from parked_keys where error_class = 'on_purpose'").await, 1);
    let heads = heads(&desk).await;
    assert_eq!(heads.len(), 1);
    desk.processor.retries().handle(&Batch { records: heads }).await.unwrap();
    let bodies: Vec<String> =
        sqlx::query_scalar("select body from things").fetch_all(desk.pool()).await.unwrap();
    assert_eq!(bodies, ["first"], "its second appearance is handled; the held one waits for the drainer");
    assert_eq!(desk.count("select count(*) from parked_keys where state = 'draining'").await, 1);
}

#[tokio::test]
async fn a_message_is_rejected_and_others_are_handled() {
    let desk = Desk::failing("host_faults_reject", "ThingSaid:reject:1:50".parse().unwrap()).await;
    let keys: Vec<String> = (0..40).map(|number| format!("key-{number}")).collect();
    let texts: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "text")).collect();
    desk.hear(&texts).await;
    let dead = desk.count("select count(*) from dead_letters where error_class = 'on_purpose'").await;
    assert!((1..40).contains(&dead), "{dead}");
    assert_eq!(desk.count("select count(*) from things").await, 40 - dead);
}
