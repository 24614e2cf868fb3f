//! Dead letters over the API: found, grouped, tried dry, edited, replayed, given up; every change in the audit.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{SecondsFormat, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use waybill_testkit::polling::eventually_named;

use crate::desk::{Desk, OPERATOR, answer};

const WAIT: Duration = Duration::from_secs(60);

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
async fn each_filter_narrows_by_itself() {
    let desk = desk("host_filters").await;
    // c's letter differs in all that they name.
    sqlx::query(
        "update dead_letters set consumer_group = 'others', topic = 'others.events', kind = 'ThingHeard',
                                 error_class = 'other', last_failed_at = last_failed_at + interval '1 hour'
         where key = 'c'",
    )
    .execute(desk.pool())
    .await
    .unwrap();
    let between = (Utc::now() + TimeDelta::minutes(30)).to_rfc3339_opts(SecondsFormat::Micros, true);
    for (of_others, of_things) in [
        ("group=others", "group=things"),
        ("topic=others.events", "topic=things.events"),
        ("kind=ThingHeard", "kind=ThingSaid"),
        ("error_class=other", "error_class=unwanted"),
        (&format!("from={between}"), &format!("to={between}")),
    ] {
        let others = desk.items(&format!("/dead-letters?{of_others}")).await;
        assert_eq!((others.len(), &others[0]["key"]), (1, &json!("c")), "{of_others}");
        assert_eq!(desk.items(&format!("/dead-letters?{of_things}")).await.len(), 2, "{of_things}");
    }
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
async fn a_key_that_is_no_text_is_asked_for_in_base64() {
    let desk = Desk::new("host_keys").await;
    desk.hear_under(b"\xfb\xff", "whose subject is another").await;
    assert_eq!(desk.items("/dead-letters?key_base64=-_8").await.len(), 1);
    let (_, tried) = desk.post("/dead-letters/dry-run", json!({"filter": {"key_base64": "-_8"}})).await;
    assert_eq!(tried["items"][0]["key_base64"], json!("+/8="), "{tried}");
    for (key, attempts) in [(&b"\xfb\xff"[..], 1), (b"base64:", 2), (b"a/b", 3)] {
        sqlx::query("insert into parked_keys (consumer_group, key, state, attempts) values ('things', $1, 'retrying', $2)")
            .bind(key)
            .bind(attempts)
            .execute(desk.pool())
            .await
            .unwrap();
    }
    assert_eq!(desk.items("/parked").await[2]["key_base64"], json!("+/8="));
    for (word, attempts) in
        [("base64:-_8", 1), ("base64:%2B%2F8%3D", 1), ("base64:YmFzZTY0Og==", 2), ("a%2Fb", 3)]
    {
        let (status, one) = desk.get(&format!("/parked/things/{word}")).await;
        assert_eq!((status, &one["attempts"]), (200, &json!(attempts)), "{word}: {one}");
    }
    let (status, refused) = desk.get("/parked/things/base64:*").await;
    assert_eq!((status, &refused["error"]["details"][0]["path"]), (400, &json!("key")), "{refused}");
}

#[tokio::test]
async fn an_edit_makes_a_dry_run_succeed_and_leaves_no_trace() {
    let desk = desk("host_edit").await;
    let filter = json!({"key": "a"});
    let (status, plan) = desk.post("/dead-letters/plan", json!({"filter": filter})).await;
    assert_eq!((status, &plan["total"], &plan["by_key"][0]["held"]), (200, &json!(1), &json!(1)));
    let (status, tried) = desk.post("/dead-letters/dry-run", json!({"filter": filter})).await;
    assert_eq!((status, &tried["items"][0]["outcome"]), (200, &json!("reject")), "{tried}");
    assert_eq!(tried["total"], 1);
    let (_, some) = desk.post("/dead-letters/dry-run", json!({"limit": 1})).await;
    assert_eq!((some["items"].as_array().unwrap().len(), &some["total"]), (1, &json!(3)), "{some}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dry_run_at_a_time_leaves_the_consumers_their_connections() {
    let desk = desk("host_crowd").await;
    desk.hear(&[("d", "reject then wait")]).await;
    sqlx::query(
        "update dead_letters set payload = 'waits for the lock' where convert_from(key, 'UTF8') = 'd'",
    )
    .execute(desk.pool())
    .await
    .unwrap();
    let mut lock = desk.pool().begin().await.unwrap();
    sqlx::query("lock table things in access exclusive mode").execute(&mut *lock).await.unwrap();
    let ask = json!({"filter": {"key": "d"}});
    let dry_run = || desk.request(Method::POST, "/dead-letters/dry-run").json(&ask).send();
    let first = tokio::spawn(dry_run());
    eventually_named("a handler that waits", WAIT, async || {
        let waits = "select count(*) from pg_locks where relation = 'things'::regclass and not granted";
        (desk.count(waits).await == 1).then_some(())
    })
    .await;
    let refused = dry_run().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "busy", "{body}");
    // A caller who hangs up leaves it at work, and the place taken until it has ended.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(dry_run().await.unwrap().status(), 503);
    lock.rollback().await.unwrap();
    eventually_named("a dry run's turn", WAIT, async || {
        let (status, tried) = answer(desk.request(Method::POST, "/dead-letters/dry-run").json(&ask)).await;
        (status == 200).then(|| assert_eq!(tried["items"][0]["outcome"], "done", "{tried}"))
    })
    .await;
}

#[tokio::test]
async fn headers_are_edited_beside_the_original_but_for_those_of_the_protocol() {
    let desk = desk("host_headers").await;
    let id = desk.items("/dead-letters?key=a").await[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/dead-letters/{id}/edit");
    let edit = async |headers: Value| {
        desk.post(&path, json!({"payload_base64": null, "headers": headers, "reason": "INC-7"})).await
    };
    let (status, letter) = edit(json!({"ce_type": "ThingSaid", "content-type": null})).await;
    assert_eq!((status, &letter["patch"]["payload_base64"]), (200, &Value::Null), "{letter}");
    assert_eq!(letter["patch"]["headers"], json!({"ce_type": "ThingSaid", "content-type": null}));
    for (wrong, why) in [
        (json!({"ce_id": null}), "ce_id can not be changed: by its id a message is handled once"),
        (json!({"retry_hop": "7"}), "retry_hop can not be changed"),
        (json!({"ce_sequence": "one"}), "header ce_sequence is \"one\""),
    ] {
        let (status, refused) = edit(wrong).await;
        assert_eq!((status, &refused["error"]["details"][0]["path"]), (400, &json!("headers")), "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(why), "{refused}");
    }
    // A payload is read as what the headers say it is; this group is interested in any type.
    let unreadable = json!({"payload_base64": BASE64.encode("unreadable"), "headers": {"ce_type": "Other"}, "reason": "r"});
    let (status, refused) = desk.post(&path, unreadable).await;
    assert_eq!((status, &refused["error"]["code"]), (422, &json!("unreadable")));
    assert!(refused["error"]["message"].as_str().unwrap().contains("could not read this Other"), "{refused}");
    let (_, letter) = edit(json!({})).await;
    assert_eq!(letter["patch"], Value::Null, "{letter}");
    assert_eq!(desk.items("/audit").await.len(), 2);
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
    let (_, letter) = desk.get(&format!("/dead-letters/{}", audit[0]["target"].as_str().unwrap())).await;
    assert_eq!(letter["discarded"]["by"], OPERATOR, "{letter}");
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

#[tokio::test]
async fn many_values_are_read_at_once_and_patched_all_or_none() {
    let desk = desk("host_values").await;
    let letters = desk.items("/dead-letters").await;
    let mut ids: Vec<Value> = letters.iter().map(|letter| letter["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    let values = async |ids: &[Value]| desk.post("/dead-letters/values", json!({"ids": ids})).await;
    let (status, read) = values(&ids).await;
    let found: Vec<&Value> = read["items"].as_array().unwrap().iter().map(|value| &value["id"]).collect();
    assert_eq!((status, found), (200, ids.iter().collect::<Vec<_>>()), "{read}");
    assert!(
        read["items"][0]["payload_base64"] == BASE64.encode("reject 1")
            && read["items"][0]["patched"] == false
    );

    let stranger = json!("01980000-0000-7000-8000-000000000001");
    let patch = |id: &Value| json!({"id": id, "payload_base64": BASE64.encode("mended")});
    let with_stranger = json!({"items": [patch(&ids[0]), patch(&stranger)], "reason": "INC-9"});
    assert_eq!(desk.post("/dead-letters/edit", with_stranger).await.0, 404);
    assert_eq!(desk.count("select count(*) from dead_letter_patches").await, 0, "all or none");
    let all: Vec<Value> = ids.iter().map(patch).collect();
    let (status, edited) = desk.post("/dead-letters/edit", json!({"items": all, "reason": "INC-9"})).await;
    assert_eq!((status, edited), (200, json!({"edited": 3})));
    assert_eq!(values(&ids[1..2]).await.1["items"][0]["payload_base64"], BASE64.encode("mended"));
    assert_eq!(desk.items("/audit").await.len(), 3, "each edit for itself");

    assert_eq!(values(&[ids[0].clone(), stranger]).await.0, 404);
    assert_eq!(values(&[]).await.0, 400);
    assert_eq!(values(&vec![ids[0].clone(); 501]).await.0, 400);
}

#[tokio::test]
async fn as_many_values_are_told_as_an_answer_holds() {
    let desk = Desk::new("host_values_large").await;
    desk.hear(&["a", "b", "c", "d", "e", "f"].map(|key| (key, "reject"))).await;
    sqlx::query(
        "insert into dead_letter_patches (dead_letter_id, payload, edited_by, reason)
         select id, convert_to(repeat('x', 900000), 'UTF8'), 'olga', 'large' from dead_letters",
    )
    .execute(desk.pool())
    .await
    .unwrap();
    let letters = desk.items("/dead-letters").await;
    let ids: Vec<&Value> = letters.iter().map(|letter| &letter["id"]).collect();
    let (status, read) = desk.post("/dead-letters/values", json!({"ids": ids})).await;
    assert_eq!(
        (status, read["items"].as_array().unwrap().len()),
        (200, 5),
        "4 MiB and the one that goes over"
    );
    let (_, rest) = desk.post("/dead-letters/values", json!({"ids": ids[5..]})).await;
    assert_eq!((&rest["items"][0]["id"], &rest["items"][0]["patched"]), (ids[5], &json!(true)));
}

#[tokio::test]
async fn what_the_group_can_not_read_and_what_another_has_edited_is_refused() {
    let desk = desk("host_edit_checked").await;
    let letters = desk.items("/dead-letters?key=a").await;
    let id = letters[0]["id"].as_str().unwrap();
    let one = format!("/dead-letters/{id}/edit");
    let body = |text: &str| json!({"payload_base64": BASE64.encode(text), "reason": "r"});
    let many = |item: Value| json!({"items": [item], "reason": "r"});
    let mut item = json!({"id": id, "payload_base64": BASE64.encode("unreadable")});
    for (path, body) in [(&one[..], body("unreadable")), ("/dead-letters/edit", many(item.clone()))] {
        let (status, refusal) = desk.post(path, body).await;
        assert_eq!((status, &refusal["error"]["code"]), (422, &json!("unreadable")), "{refusal}");
        let why = refusal["error"]["message"].as_str().unwrap();
        assert!(
            why.starts_with("group things could not read this ThingSaid") && why.contains("it says so"),
            "{why}"
        );
    }
    assert_eq!(desk.count("select count(*) from dead_letter_patches").await, 0);

    let expecting = |text: &str, at: &Value| {
        let mut body = body(text);
        body["expect_edited_at"] = at.clone();
        body
    };
    let (status, first) = desk.post(&one, expecting("mine", &Value::Null)).await;
    assert_eq!(status, 200, "there was none, as expected: {first}");
    let (status, refusal) = desk.post(&one, expecting("yours", &Value::Null)).await;
    assert_eq!((status, &refusal["error"]["code"]), (409, &json!("edited_meanwhile")), "{refusal}");
    assert!(refusal["error"]["message"].as_str().unwrap().contains(OPERATOR), "{refusal}");
    item["payload_base64"] = json!(BASE64.encode("yours"));
    item["expect_edited_at"] = json!("2026-05-04T10:00:00Z");
    assert_eq!(desk.post("/dead-letters/edit", many(item)).await.0, 409);
    let (_, values) = desk.post("/dead-letters/values", json!({"ids": [id]})).await;
    assert_eq!(values["items"][0]["payload_base64"], BASE64.encode("mine"));
    let (status, _) = desk.post(&one, expecting("ours", &values["items"][0]["edited_at"])).await;
    assert_eq!(status, 200, "what was seen is what is there");
    assert_eq!(desk.post(&one, body("mine again")).await.0, 200, "who expects nothing writes over all");
}
