//! Dead letters over the API: found, grouped, tried dry, edited, replayed, given up; every change in the audit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::desk::{Desk, OPERATOR};

/// Three rejected messages: two keys, two texts of one failure group; one more message waits behind the first key.
async fn desk(hint: &str) -> Desk {
    let desk = Desk::new(hint).await;
    desk.hear(&[("a", "reject 1"), ("b", "reject 2"), ("c", "fine")]).await;
    desk.hear(&[("a", "waits"), ("c", "reject 3")]).await;
    desk
}

#[tokio::test]
async fn letters_are_listed_in_pages_found_by_filters_and_grouped() {
    let desk = desk("host_letters").await;
    assert_eq!(desk.items("/dead-letters").await.len(), 3);
    let (_, first) = desk.get("/dead-letters?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = desk.get(&format!("/dead-letters?limit=2&cursor={cursor}")).await;
    assert_eq!((second["items"].as_array().unwrap().len(), &second["next_cursor"]), (1, &Value::Null));
    let of_a = desk.items("/dead-letters?key=a&kind=ThingSaid&error_class=unwanted&group=things").await;
    assert_eq!(of_a.len(), 1);
    assert_eq!(desk.items("/dead-letters?state=resolved").await.len(), 0);

    let groups = desk.items("/failure-groups").await;
    assert_eq!((groups.len(), &groups[0]["count"], &groups[0]["keys"]), (1, &json!(3), &json!(3)));
    assert_eq!(groups[0]["message"], "nobody wants <text>");
    let group = groups[0]["failure_group"].as_str().unwrap();
    assert_eq!(desk.items(&format!("/dead-letters?failure_group={group}")).await.len(), 3);

    let id = of_a[0]["id"].as_str().unwrap();
    let (status, letter) = desk.get(&format!("/dead-letters/{id}")).await;
    assert_eq!((status, &letter["payload_base64"]), (200, &json!(BASE64.encode("reject 1"))));
    assert!(letter["headers"].as_array().unwrap().iter().any(|header| header["value"] == "ThingSaid"));
    assert_eq!(desk.get("/dead-letters/01980000-0000-7000-8000-000000000001").await.0, 404);
    assert_eq!(desk.get("/dead-letters/7").await.0, 400);
}

#[tokio::test]
async fn parked_keys_tell_what_waits_behind_them() {
    let desk = desk("host_parked").await;
    let parked = desk.items("/parked?state=blocked").await;
    assert_eq!(parked.len(), 3);
    let (_, of_a) = desk.get("/parked/things/a").await;
    assert_eq!((&of_a["state"], &of_a["held_count"]), (&json!("blocked"), &json!(1)));
    assert_eq!(of_a["held"].as_array().unwrap().len(), 1);
    assert_eq!(desk.get("/parked/things/z").await.0, 404);
}

#[tokio::test]
async fn an_edit_makes_a_dry_run_succeed_and_leaves_no_trace() {
    let desk = desk("host_edit").await;
    let filter = json!({"key": "a"});
    let (status, plan) = desk.post("/dead-letters/plan", json!({"filter": filter})).await;
    assert_eq!((status, &plan["total"], &plan["by_key"][0]["held"]), (200, &json!(1), &json!(1)));
    let (status, tried) = desk.post("/dead-letters/dry-run", json!({"filter": filter})).await;
    assert_eq!((status, &tried["items"][0]["outcome"]), (200, &json!("reject")), "{tried}");
    let id = tried["items"][0]["id"].as_str().unwrap();

    let edit = json!({"payload_base64": BASE64.encode("mended"), "reason": "INC-7"});
    let (status, letter) = desk.post(&format!("/dead-letters/{id}/edit"), edit).await;
    assert_eq!((status, &letter["patch"]["edited_by"]), (200, &json!(OPERATOR)), "{letter}");
    assert_eq!(letter["payload_base64"], BASE64.encode("reject 1"), "the original stays");
    let (_, tried) = desk.post("/dead-letters/dry-run", json!({"filter": filter, "limit": 1})).await;
    let tried = &tried["items"][0];
    assert_eq!((&tried["outcome"], &tried["patched"]), (&json!("done"), &json!(true)), "{tried}");
    let writes = tried["writes"].as_array().unwrap();
    assert!(
        writes.iter().any(|write| write["table"] == "things" && write["after"]["body"] == "mended"),
        "{writes:?}"
    );
    assert_eq!(desk.count("select count(*) from things where body = 'mended'").await, 0);

    let (status, _) =
        desk.post(&format!("/dead-letters/{id}/edit"), json!({"payload_base64": null, "reason": "r"})).await;
    assert_eq!(status, 200);
    let many = json!({"items": [{"id": id, "payload_base64": BASE64.encode("again")}], "reason": "INC-8"});
    assert_eq!(desk.post("/dead-letters/edit", many).await, (200, json!({"edited": 1})));
    let wrong = json!({"payload_base64": "?", "reason": "r"});
    assert_eq!(desk.post(&format!("/dead-letters/{id}/edit"), wrong).await.0, 400);
    let audit = desk.items("/audit").await;
    assert_eq!(audit.len(), 3, "{audit:?}");
    assert!(
        audit
            .iter()
            .all(|entry| entry["subject"] == OPERATOR && entry["trace_id"].as_str().unwrap().len() == 32)
    );
}

#[tokio::test]
async fn a_discard_counts_first_and_lets_the_key_go_on() {
    let desk = desk("host_discard").await;
    let discard = |expect| json!({"filter": {"key": "a"}, "reason": "a test message", "expect": expect});
    let (status, refusal) = desk.post("/dead-letters/discard", discard(2)).await;
    assert_eq!((status, &refusal["error"]["code"]), (409, &json!("count_differs")));
    assert_eq!(desk.items("/audit").await.len(), 0, "nothing was done");
    assert_eq!(desk.post("/dead-letters/discard", discard(1)).await, (200, json!({"discarded": 1})));
    assert_eq!(desk.items("/dead-letters?state=discarded").await.len(), 1);
    assert_eq!(desk.items("/parked?state=draining").await.len(), 1);
    let audit = desk.items("/audit").await;
    assert_eq!((&audit[0]["reason"], &audit[0]["subject"]), (&json!("a test message"), &json!(OPERATOR)));
}

#[tokio::test]
async fn a_replay_is_made_paused_resumed_and_cancelled() {
    let desk = desk("host_replay").await;
    let (status, replay) =
        desk.post("/replays", json!({"filter": {"group": "things"}, "reason": "mended"})).await;
    assert_eq!((status, &replay["state"], &replay["total"]), (202, &json!("running"), &json!(3)), "{replay}");
    assert_eq!((&replay["rate_per_s"], &replay["ramp"]), (&json!(50), &json!(true)));
    let path = format!("/replays/{}", replay["id"].as_str().unwrap());
    assert_eq!(desk.get(&path).await.1["by"], OPERATOR);
    assert_eq!(desk.items("/replays").await.len(), 1);
    for (verb, status, state) in [
        ("resume", 409, None),
        ("pause", 200, Some("paused")),
        ("pause", 409, None),
        ("resume", 200, Some("running")),
        ("cancel", 200, Some("cancelled")),
        ("cancel", 409, None),
    ] {
        let (is, body) = desk.post(&format!("{path}/{verb}"), json!({"reason": "r"})).await;
        assert_eq!(is, status, "{verb}: {body}");
        if let Some(state) = state {
            assert_eq!(body["state"], state);
        }
    }
    assert_eq!(desk.items("/audit").await.len(), 4, "made, paused, resumed, cancelled");
}
