//! What only looks, against recorded answers: the tables, the JSON, and what can not be looked at.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::double::{Double, Doubles};
use crate::{command, golden_frame, text};

pub(crate) const ORDER: &str = "018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f";
pub(crate) const LETTER: &str = "01980000-0000-7000-8000-00000000000a";

/// A dead letter as services tell it.
pub(crate) fn letter(id: &str) -> Value {
    json!({
        "id": id, "group": "orders", "state": "open", "topic": "inventory.events", "partition": 2, "offset": 41,
        "record_time": "2026-05-04T10:00:00Z", "message_id": "01980000-0000-7000-8000-0000000000e1",
        "kind": "StockRejected", "key": ORDER, "error_class": "rejected",
        "error_message": "no saga waits\nfor this", "failure_group": "0123456789abcdef", "attempts": 4,
        "first_failed_at": "2026-05-04T10:00:01Z", "last_failed_at": "2026-05-04T10:05:06.123456Z",
        "correlation_id": ORDER, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "hop": 3, "patched": false,
        "payload_bytes": 120, "of_a_newer_version": 1
    })
}

/// The same with everything there is, its value an OrderPlaced.
pub(crate) fn detail(id: &str) -> Value {
    let mut detail = letter(id);
    detail["kind"] = json!("OrderPlaced");
    detail["headers"] = json!([{"name": "ce_type", "value": "OrderPlaced"}, {"name": "x", "base64": "/w=="}]);
    detail["payload_base64"] = json!(base64(&golden_frame("orders/OrderPlaced.1")));
    detail["patch"] = Value::Null;
    detail["replays"] = json!([{"operation": "01980000-0000-7000-8000-0000000000b1", "at": "2026-05-04T10:02:00Z", "outcome": "failed", "why": "again"}]);
    detail
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn plan(total: u64) -> Value {
    json!({
        "total": total, "keys": 1, "by_group": [{"group": "orders", "count": total}],
        "by_failure_group": [{"failure_group": "0123456789abcdef", "count": total}],
        "by_key": [{"key": ORDER, "count": total, "parked_state": "blocked", "held": 3}],
        "can_not_travel": 1, "oldest": "2026-05-04T10:00:00Z", "newest": "2026-05-04T11:00:00Z"
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters() {
    let doubles = Doubles::serve().await;
    doubles.list_nothing("GET /dead-letters");
    doubles.list_nothing("GET /failure-groups");
    let none = doubles.ctl(&["dead-letters", "list", "--group", "orders"]);
    assert_eq!((none.status.code(), text(&none.stdout)), (Some(0), "no dead letter fits\n"));

    let doubles = Doubles::serve().await;
    doubles.orders.lists("GET /dead-letters", json!([letter(LETTER)]));
    doubles.inventory.lists("GET /dead-letters", json!([]));
    let mut other = letter("01980000-0000-7000-8000-00000000000b");
    other["key"] = Value::Null;
    other["key_base64"] = json!("/w==");
    other["patched"] = json!(true);
    doubles.payments.lists("GET /dead-letters", json!([other]));
    let listed =
        doubles.ctl(&["dead-letters", "list", "--type", "StockRejected", "--from", "2026-05-04T00:00:00Z"]);
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
    insta::assert_snapshot!("dead_letters_list", text(&listed.stdout));
    assert_eq!(
        doubles.orders.asked()[0].query,
        "kind=StockRejected&from=2026-05-04T00%3A00%3A00.000000Z&limit=100"
    );
    let listed = doubles.ctl(&["dead-letters", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["complete"], true);
    assert_eq!(listed["items"][0]["service"], "orders");
    assert_eq!(listed["items"][0]["of_a_newer_version"], 1, "what is not known is passed on");

    doubles.all().iter().for_each(|double| {
        double.says("POST /dead-letters/plan", plan(2));
    });
    let planned =
        doubles.ctl(&["dead-letters", "plan", "--service", "orders", "--failure-group", "0123456789abcdef"]);
    insta::assert_snapshot!("dead_letters_plan", text(&planned.stdout));
    let body = &doubles.orders.posted("/dead-letters/plan")[0];
    assert_eq!(*body, json!({"filter": {"failure_group": "0123456789abcdef"}}));
    assert!(doubles.inventory.posted("/dead-letters/plan").is_empty(), "--service asks one alone");

    let group = json!({
        "failure_group": "0123456789abcdef", "group": "orders", "kind": "StockRejected", "error_class": "rejected",
        "message": "no saga of <uuid>", "count": 23000, "keys": 700, "first_failed_at": "2026-05-04T10:00:00Z",
        "last_failed_at": "2026-05-04T11:00:00Z", "example": LETTER
    });
    doubles.all().iter().for_each(|double| {
        double.lists("GET /failure-groups", json!([group]));
    });
    let groups = doubles.ctl(&["dead-letters", "groups", "--service", "orders"]);
    insta::assert_snapshot!("dead_letters_groups", text(&groups.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_letter_is_shown_decoded() {
    let doubles = Doubles::serve().await;
    let path = format!("GET /dead-letters/{LETTER}");
    let mut edited = detail(LETTER);
    edited["patch"] = json!({
        "payload_base64": base64(b"no frame"), "edited_by": "ana", "edited_at": "2026-05-04T12:00:00Z", "reason": "typo"
    });
    doubles.payments.says(&path, edited);
    let shown = doubles.ctl(&["dead-letters", "show", LETTER]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    insta::assert_snapshot!("dead_letters_show", text(&shown.stdout));
    let shown = doubles.ctl(&["dead-letters", "show", LETTER, "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["decoded"]["original"]["value"]["currency"], "EUR");
    assert_eq!(shown["service"], "payments");

    let mut given_up = detail(LETTER);
    given_up["state"] = json!("discarded");
    given_up["discarded"] = json!({"by": "ana", "at": "2026-05-04T13:00:00Z", "reason": "a test order"});
    doubles.payments.forget(&path);
    doubles.payments.says(&path, given_up);
    let shown = doubles.ctl(&["dead-letters", "show", LETTER]);
    let told = "\ndiscarded by ana at 2026-05-04 13:00:00: a test order\n";
    assert!(text(&shown.stdout).ends_with(told), "{}", text(&shown.stdout));

    let none = doubles.ctl(&["dead-letters", "show", "01980000-0000-7000-8000-0000000000ff"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains(
        "there is no dead letter 01980000-0000-7000-8000-0000000000ff at orders, inventory, payments"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_followed_and_more_is_said() {
    let doubles = Doubles::serve().await;
    doubles.list_nothing("GET /audit");
    let entry = |n: u32| {
        json!({"id": n, "at": format!("2026-05-04T10:00:{n:02}Z"), "subject": "ana", "action": "dead_letters.discard",
               "target": "{}", "reason": "over", "outcome": "3 discarded", "trace_id": null})
    };
    let orders = Double::serve().await;
    orders.says("GET /audit", json!({"items": [entry(1), entry(2)], "next_cursor": "c1"}));
    orders.says("GET /audit", json!({"items": [entry(3)], "next_cursor": "c2"}));
    let urls = format!("orders={}", orders.url);
    let run = command(&["audit", "list", "--limit", "3", "--operator-urls", &urls])
        .env("WAYBILL_TOKEN", "let.me.in")
        .output()
        .unwrap();
    insta::assert_snapshot!("audit_list", text(&run.stdout));
    assert!(text(&run.stderr).contains("there are more: --limit N shows them"), "{}", text(&run.stderr));
    let queries: Vec<String> = orders.asked().into_iter().map(|asked| asked.query).collect();
    assert_eq!(queries, ["limit=3", "limit=1&cursor=c1"]);
    let run = doubles.ctl(&["audit", "list"]);
    assert_eq!(text(&run.stdout), "nothing was changed by operators\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_outbox_and_sagas() {
    let doubles = Doubles::serve().await;
    doubles.list_nothing("GET /parked");
    let mut parked = json!({
        "group": "inventory", "key": ORDER, "state": "retrying", "tier": 2, "due_at": "2026-05-04T10:05:00Z",
        "attempts": 3, "error_class": "retry", "error_message": "the shelf is away", "dead_letter_id": null,
        "held_count": 2, "held_bytes": 2048, "parked_at": "2026-05-04T10:00:00Z"
    });
    let inventory = Double::serve().await;
    inventory.lists("GET /parked", json!([parked]));
    parked["held"] = json!([{"message_id": "01980000-0000-7000-8000-0000000000e2", "kind": "ReleaseStock",
        "topic": "inventory.commands", "partition": 1, "offset": 7, "held_at": "2026-05-04T10:00:02Z", "bytes": 1024}]);
    inventory.says(&format!("GET /parked/inventory/{ORDER}"), parked);
    inventory.says("GET /outbox", json!({
        "position": {"from": "790:795:790", "to": null, "id": 0, "updated_at": "2026-05-04T10:00:00Z"},
        "lease": {"owner": "relay-1", "expires_at": "2026-05-04T10:00:10Z", "epoch": 7},
        "oldest_unpublished_at": "2026-05-04T09:59:59Z", "unpublished_rows": null,
        "partitions": [{"name": "outbox_2026_05_04", "from": "2026-05-04T00:00:00Z", "to": "2026-05-05T00:00:00Z",
            "rows_estimate": 1200, "bytes": 1_572_864, "published": false}]
    }));
    let ctl = |arguments: &[&str]| {
        let urls = format!("inventory={}", inventory.url);
        let run =
            command(arguments).env("WAYBILL_OPERATOR_URLS", urls).env("WAYBILL_TOKEN", "let.me.in").output();
        let run = run.unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        text(&run.stdout).to_owned()
    };
    insta::assert_snapshot!("parked_list", ctl(&["parked", "list"]));
    insta::assert_snapshot!("parked_show", ctl(&["parked", "show", "inventory", ORDER]));
    insta::assert_snapshot!("outbox_status", ctl(&["outbox", "status"]));

    let mut saga = json!({
        "saga": "place_order", "key": ORDER, "version": 5, "status": "stuck", "step": "capture", "phase": "act",
        "attempts": 8, "due_at": null, "correlation_id": ORDER, "reason": null, "created_at": "2026-05-04T10:00:00Z",
        "updated_at": "2026-05-04T10:30:00Z", "stuck_why": "the provider refuses"
    });
    doubles.orders.lists("GET /sagas", json!([saga]));
    let listed = doubles.ctl(&["saga", "list", "--state", "stuck"]);
    assert_eq!(
        listed.status.code(),
        Some(0),
        "services without sagas are no error: {}",
        text(&listed.stderr)
    );
    insta::assert_snapshot!("saga_list", text(&listed.stdout));
    saga["data"] = json!({"total_minor": 2999});
    saga["log"] = json!([{"number": 1, "at": "2026-05-04T10:00:00Z", "entry": {"input": {"started": {"version": 1}}, "status": "running"}}]);
    doubles.orders.says(&format!("GET /sagas/place_order/{ORDER}"), saga);
    let shown = doubles.ctl(&["saga", "show", "place_order", ORDER]);
    insta::assert_snapshot!("saga_show", text(&shown.stdout));
    let none = doubles.ctl(&["saga", "list", "--service", "payments"]);
    assert_eq!(none.status.code(), Some(1), "no sagas anywhere is no empty list");
    assert!(text(&none.stderr).contains("none of payments has sagas"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_is_an_error_that_says_how_to_mend_it() {
    let doubles = Doubles::serve().await;
    doubles.list_nothing("GET /parked");
    let urls = format!("orders={},payments=http://127.0.0.1:1", doubles.orders.url);
    let asked = |code: i32, urls: &str, token: &str, more: &[&str]| {
        let mut run = command(&[&["parked", "list"], more].concat());
        let run = run.env("WAYBILL_OPERATOR_URLS", urls).env("WAYBILL_TOKEN", token).output().unwrap();
        assert_eq!(run.status.code(), Some(code), "{}", text(&run.stderr));
        assert!(run.stdout.is_empty(), "could not look is not the same as nothing found");
        text(&run.stderr).to_owned()
    };
    let run = |urls: &str, token: &str, more: &[&str]| asked(1, urls, token, more);
    let said = run(&urls, "let.me.in", &[]);
    assert!(said.contains("1 of 2 services could not be asked (--service NAME asks one alone)"), "{said}");
    assert!(said.contains("payments can not be asked at http://127.0.0.1:1/ (--operator-urls"), "{said}");
    let said = run(&doubles.urls(), "another", &["--service", "orders"]);
    assert!(said.contains("orders does not accept the access token: the token is not valid"), "{said}");
    let refused = Double::serve().await;
    let body = json!({"detail": "the role is customer", "error": {"code": "forbidden", "message": "the role is customer", "details": []}});
    refused.says_with("GET /parked", 403, body);
    let said = run(&format!("orders={}", refused.url), "let.me.in", &[]);
    assert!(said.contains("the token needs the role operator"), "{said}");

    // Wrong settings are found before anybody is asked.
    let settings = |urls: &str, token: &str, more: &[&str]| asked(2, urls, token, more);
    let said = settings(&doubles.urls(), "", &[]);
    assert!(
        said.contains("no access token: set WAYBILL_TOKEN") && said.contains("--role operator"),
        "{said}"
    );
    let said = settings(&doubles.urls(), "let\nme in", &[]);
    assert!(said.contains("the access token has characters no token has"), "{said}");
    let said = settings(&doubles.urls(), "let.me.in", &["--token-file", "/nowhere"]);
    assert!(said.contains("the token file /nowhere can not be read: "), "{said}");
    let said = settings(&doubles.urls(), "let.me.in", &["--service", "shipping"]);
    assert!(said.contains("--service shipping is none of orders, inventory, payments"), "{said}");
    for (urls, what) in [
        ("orders", "\"orders\" is no name=URL"),
        (",", "no service is named"),
        ("orders=ftp://127.0.0.1", "orders: \"ftp://127.0.0.1\" is no http or https URL"),
    ] {
        let said = settings(urls, "let.me.in", &[]);
        assert!(said.contains(what), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_listeners_404_is_not_taken_for_nothing_there() {
    let doubles = Doubles::serve().await;
    let message = "there is nothing at this path: see /api/v1/openapi.json";
    let body =
        json!({"detail": message, "error": {"code": "route_not_found", "message": message, "details": []}});
    for (line, path) in [
        (&["dead-letters", "show", LETTER][..], format!("/dead-letters/{LETTER}")),
        (&["dead-letters", "replay", "watch", LETTER], format!("/replays/{LETTER}")),
        (&["parked", "show", "orders", ORDER], format!("/parked/orders/{ORDER}")),
        (&["saga", "retry", "place-order", ORDER], format!("/sagas/place-order/{ORDER}")),
        (&["saga", "list"], "/sagas".to_owned()),
    ] {
        doubles.payments.says_with(&format!("GET {path}"), 404, body.clone());
        let run = doubles.ctl(line);
        assert_eq!(run.status.code(), Some(1), "{line:?}: {}", text(&run.stdout));
        let (said, path) = (text(&run.stderr), path.trim_start_matches('/'));
        let wanted = format!("{}/ is no operator listener: it knows nothing of {path}", doubles.payments.url);
        assert!(said.contains(&wanted) && !said.contains("there is no "), "{said}");
    }
}

#[test]
fn help() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_dead_letters", &["dead-letters", "--help"]),
        ("help_dead_letters_replay", &["dead-letters", "replay", "--help"]),
        ("help_events_get", &["events", "get", "--help"]),
        ("help_order_explain", &["order", "explain", "--help"]),
    ] {
        let run = command(arguments).output().unwrap();
        assert_eq!(run.status.code(), Some(0), "{arguments:?}");
        insta::assert_snapshot!(name, text(&run.stdout));
    }
}
