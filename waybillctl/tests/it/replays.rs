//! `dead-letters replay` and `dry-run` against recorded answers.

use serde_json::{Value, json};

use crate::double::Doubles;
use crate::looks::{LETTER, ORDER, base64, plan};
use crate::{golden_frame, text};

const REPLAY: &str = "01980000-0000-7000-8000-0000000000b1";

fn replay(state: &str, resolved: u64, failed: u64) -> Value {
    json!({
        "id": REPLAY, "state": state, "total": 10, "sent": resolved + failed, "resolved": resolved, "failed": failed,
        "skipped": 0, "retrying": 0, "remaining": 10 - resolved - failed, "filter": {}, "reason": "mended", "by": "ana",
        "rate_per_s": 50, "ramp": true, "stop_after_failures": 5, "created_at": "2026-05-04T10:00:00Z",
        "updated_at": "2026-05-04T10:00:01Z", "stop_reason": (state == "stopped").then_some("5 failures")
    })
}

async fn doubles() -> Doubles {
    let doubles = Doubles::serve().await;
    doubles.orders.says("POST /dead-letters/plan", plan(10));
    doubles.inventory.says("POST /dead-letters/plan", plan(0));
    doubles.payments.says("POST /dead-letters/plan", plan(0));
    doubles
}

#[tokio::test(flavor = "multi_thread")]
async fn without_apply_it_is_a_plan() {
    let doubles = doubles().await;
    let run = doubles.ctl(&["dead-letters", "replay", "--group", "orders"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(text(&run.stdout).ends_with("send them with --apply --reason TEXT and the same options\n"));
    assert!(doubles.orders.posted("/replays").is_empty(), "a plan changes nothing");
    let run = doubles.ctl(&["dead-letters", "replay", "--group", "orders", "--apply"]);
    assert_eq!(run.status.code(), Some(2), "a change says why");
    let run = doubles.ctl(&["dead-letters", "replay"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("say which dead letters"), "{}", text(&run.stderr));
    let run = doubles.ctl(&["dead-letters", "replay", "--all", "--group", "orders"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("--all is every open dead letter"), "{}", text(&run.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_plan_is_shown_of_what_can_not_be_changed() {
    let doubles = doubles().await;
    for verb in [&["replay"][..], &["discard"], &["edit", "--transform", "any.jq"]] {
        let line = [&["dead-letters"], verb, &["--group", "orders", "--state", "resolved"]].concat();
        let run = doubles.ctl(&line);
        assert_eq!(run.status.code(), Some(2), "{line:?}: {}", text(&run.stdout));
        let said = text(&run.stderr);
        assert!(said.contains("--state resolved: only open dead letters can be changed"), "{said}");
        assert!(doubles.orders.asked().is_empty(), "nobody is asked");
    }
    let run = doubles.ctl(&["dead-letters", "replay", "--group", "orders", "--state", "open"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_watched_to_its_end() {
    let doubles = doubles().await;
    doubles.orders.says_with("POST /replays", 202, replay("running", 0, 0));
    doubles.orders.says(&format!("GET /replays/{REPLAY}"), replay("running", 4, 0));
    doubles.orders.says(&format!("GET /replays/{REPLAY}"), replay("finished", 10, 0));
    let run = doubles.ctl(&[
        "dead-letters",
        "replay",
        "--type",
        "StockRejected",
        "--id",
        LETTER,
        "--rate",
        "20",
        "--apply",
        "--reason",
        "mended",
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    insta::assert_snapshot!("replay", text(&run.stdout));
    assert_eq!(
        doubles.orders.posted("/replays"),
        [
            json!({"filter": {"kind": "StockRejected", "ids": [LETTER]}, "reason": "mended", "rate_per_s": 20, "ramp": true, "stop_after_failures": 5})
        ]
    );
    assert!(doubles.payments.posted("/replays").is_empty(), "only where something fits");
    let said = text(&run.stderr);
    assert!(
        said.contains(
            "orders: 4 of 10: 4 resolved, 0 failed\norders: 10 of 10: 10 resolved, 0 failed, finished\n"
        ),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_replay_ends_with_3_and_goes_on_by_name() {
    let doubles = doubles().await;
    doubles.orders.says_with("POST /replays", 202, replay("running", 0, 0));
    doubles.orders.says(&format!("GET /replays/{REPLAY}"), replay("stopped", 2, 5));
    let run = doubles.ctl(&["dead-letters", "replay", "--all", "--apply", "--reason", "mended"]);
    assert_eq!(run.status.code(), Some(3));
    assert!(text(&run.stdout).contains("5 failures"), "{}", text(&run.stdout));

    let run = doubles.ctl(&["dead-letters", "replay", "resume", REPLAY]);
    assert_eq!(
        text(&run.stdout).lines().next(),
        Some(format!("would resume replay {REPLAY} of orders, which is stopped").as_str())
    );
    doubles.orders.says(&format!("POST /replays/{REPLAY}/resume"), replay("running", 2, 0));
    let run =
        doubles.ctl(&["dead-letters", "replay", "resume", REPLAY, "--apply", "--reason", "mended again"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert_eq!(
        doubles.orders.posted(&format!("/replays/{REPLAY}/resume")),
        [json!({"reason": "mended again"})]
    );

    let run = doubles.ctl(&["dead-letters", "replay", "watch", REPLAY, "--json"]);
    assert_eq!(run.status.code(), Some(3), "it is stopped");
    doubles.all().iter().for_each(|double| {
        double.lists("GET /replays", json!([]));
    });
    let run = doubles.ctl(&["dead-letters", "replay", "list"]);
    assert_eq!(text(&run.stdout), "no replay\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_it_is_only_started() {
    let doubles = doubles().await;
    doubles.orders.says_with("POST /replays", 202, replay("running", 0, 0));
    let run = doubles.ctl(&[
        "dead-letters",
        "replay",
        "--all",
        "--apply",
        "--reason",
        "mended",
        "--detach",
        "--json",
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let shown: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&shown["items"][0]["id"], &shown["items"][0]["service"]), (&json!(REPLAY), &json!("orders")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_rows_and_messages() {
    let doubles = doubles().await;
    let message = json!({"topic": "orders.events", "key": ORDER, "kind": "OrderPlaced", "headers": {},
        "payload_base64": base64(&golden_frame("orders/OrderPlaced.1"))});
    doubles.orders.says("POST /dead-letters/dry-run", json!({"items": [
        {"id": LETTER, "key": ORDER, "outcome": "done", "why": null, "patched": true, "writes": [
            {"table": "orders", "operation": "update", "before": {"status": "PENDING", "version": 1}, "after": {"status": "REJECTED", "version": 2}},
            {"table": "outbox", "operation": "insert", "before": null, "after": {"id": 7}, "note": "long texts are cut"}],
         "messages": [message]},
        {"id": "01980000-0000-7000-8000-00000000000b", "key_base64": "/w==", "outcome": "duplicate", "why": "in the inbox", "patched": false, "writes": [], "messages": []}], "total": 23_000}));
    doubles.inventory.says("POST /dead-letters/dry-run", json!({"items": [], "total": 0}));
    doubles.payments.says("POST /dead-letters/dry-run", json!({"items": [], "total": 0}));
    let run = doubles.ctl(&["dead-letters", "dry-run", "--group", "orders"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    insta::assert_snapshot!("dry_run", text(&run.stdout));
    assert_eq!(
        doubles.orders.posted("/dead-letters/dry-run"),
        [json!({"filter": {"group": "orders"}, "limit": 10})]
    );
    assert!(text(&run.stderr).contains("there are more"), "{}", text(&run.stderr));
    let run = doubles.ctl(&["dead-letters", "dry-run", "--group", "orders", "--json"]);
    let tried: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(tried["complete"], false, "2 of 23,000");

    doubles.payments.forget("POST /dead-letters/dry-run");
    doubles.payments.says("POST /dead-letters/dry-run", json!({"total": 0}));
    let run = doubles.ctl(&["dead-letters", "dry-run", "--group", "orders"]);
    assert_eq!(run.status.code(), Some(1), "a list that is missing is no empty list");
    assert!(text(&run.stderr).contains("lacks what this program needs"), "{}", text(&run.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_bears_with_a_service_that_is_away_for_a_while() {
    let doubles = doubles().await;
    doubles.orders.says_with("POST /replays", 202, replay("running", 0, 0));
    let path = format!("GET /replays/{REPLAY}");
    doubles.orders.says(&path, replay("running", 4, 0));
    doubles.orders.says_with(&path, 503, json!({"detail": "starting"}));
    doubles.orders.says_with(&path, 503, json!({"detail": "starting"}));
    doubles.orders.says(&path, replay("finished", 10, 0));
    let run = doubles.ctl(&["dead-letters", "replay", "--all", "--apply", "--reason", "mended"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let said = text(&run.stderr);
    assert_eq!(said.matches("orders does not answer; asking again for 60s").count(), 1, "{said}");
    assert!(said.contains("starting") && said.contains("orders answers again\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_skipped_letters_ends_with_3() {
    let doubles = doubles().await;
    let mut skipped = replay("finished", 9, 0);
    skipped["skipped"] = json!(1);
    doubles.orders.says_with("POST /replays", 202, replay("running", 0, 0));
    doubles.orders.says(&format!("GET /replays/{REPLAY}"), skipped);
    let run = doubles.ctl(&["dead-letters", "replay", "--all", "--apply", "--reason", "mended"]);
    assert_eq!(run.status.code(), Some(3), "the letter may be open still: {}", text(&run.stderr));
    assert!(text(&run.stderr).contains("9 resolved, 0 failed, 1 skipped"), "{}", text(&run.stderr));
}
