//! `/outbox` and `/facts` over the API.

use serde_json::json;
use uuid::Uuid;

use crate::desk::Desk;

async fn said(desk: &Desk, key: Uuid) {
    sqlx::query(
        "select outbox_append(array[$1], array['things.events'], array[convert_to($2, 'UTF8')],
                              array['{\"ce_type\": \"ThingSaid\"}'], array['x'::bytea])",
    )
    .bind(Uuid::now_v7())
    .bind(key.to_string())
    .execute(desk.pool())
    .await
    .unwrap();
}

#[tokio::test]
async fn the_outbox_tells_how_it_stands_and_is_published_again() {
    let desk = Desk::new("host_outbox").await;
    let key = Uuid::now_v7();
    said(&desk, key).await;
    let (status, outbox) = desk.get("/outbox").await;
    assert_eq!(
        (status, &outbox["unpublished_rows"], &outbox["lease"]["epoch"]),
        (200, &json!(1), &json!(0)),
        "{outbox}"
    );
    assert!(outbox["oldest_unpublished_at"].is_string() && outbox["position"]["from"].is_string());
    assert!(!outbox["partitions"].as_array().unwrap().is_empty());

    let range = json!({"from_id": 0, "to_id": 1_000});
    let (status, planned) = desk.post("/outbox/republish", range.clone()).await;
    assert_eq!((status, &planned["rows"], &planned["applied"]), (200, &json!(1), &json!(false)), "{planned}");
    assert_eq!(desk.count("select count(*) from outbox").await, 1);
    let mut apply = range;
    apply["apply"] = json!(true);
    apply["reason"] = json!("the topic was deleted");
    let (status, applied) = desk.post("/outbox/republish", apply.clone()).await;
    assert_eq!((status, &applied["applied"]), (200, &json!(true)), "{applied}");
    assert_eq!(desk.count("select count(*) from outbox").await, 2);
    apply["limit"] = json!(100_001);
    assert_eq!(desk.post("/outbox/republish", apply).await.0, 400);
    let audit = desk.items("/audit").await;
    assert_eq!(
        (audit.len(), &audit[0]["action"], &audit[0]["outcome"]),
        (1, &json!("outbox.republish"), &json!("1 rows"))
    );
}

#[tokio::test]
async fn facts_join_what_one_database_knows_of_a_story() {
    let desk = Desk::new("host_facts").await;
    let story = Uuid::now_v7();
    said(&desk, story).await;
    let heard = desk.hear(&[(&story.to_string(), "reject this")]).await;
    sqlx::query(
        "insert into idempotency_keys (scope, endpoint, key, request_hash, status, headers, body)
         values ('somebody', 'POST /things', 'k', decode(repeat('00', 32), 'hex'), 202,
                 json_build_object('location', '/things/' || $1::text), 'x')",
    )
    .bind(story)
    .execute(desk.pool())
    .await
    .unwrap();
    let (status, facts) = desk.get(&format!("/facts/{story}?message_ids={}", heard[0])).await;
    assert_eq!((status, &facts["service"]), (200, &json!("things")), "{facts}");
    assert_eq!(facts["outbox"][0]["kind"], "ThingSaid");
    assert_eq!(facts["inbox"][0]["message_id"], json!(heard[0]));
    assert_eq!(facts["parked"][0]["state"], "blocked");
    assert_eq!((&facts["idempotency"][0]["key"], &facts["saga_log"]), (&json!("k"), &json!([])));
    let (status, nothing) = desk.get(&format!("/facts/{}", Uuid::now_v7())).await;
    assert_eq!((status, &nothing["outbox"]), (200, &json!([])));
}
