//! Every verb that asks services, in both of its forms, word for word: as text and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::double::Doubles;
use crate::looks::{LETTER, ORDER, base64, detail, letter, plan};
use crate::usage::verbs;
use crate::{explain, golden_frame, text};

const REPLAY: &str = "01980000-0000-7000-8000-0000000000b1";
/// Families whose verbs ask brokers, registries and databases: `topics.rs`, `schemas.rs`, `events.rs`, `forms.rs`; what
/// `verify` prints is beside its report, and end to end.
const ELSEWHERE: [&str; 4] = ["topics", "schemas", "events", "verify"];
const APPLY: [&str; 3] = ["--apply", "--reason", "mended"];

/// What operators type, and whether it is a change: then its plan is shown, and what came of it.
fn lines() -> Vec<(Vec<&'static str>, bool)> {
    let lines: &[(&[&str], bool)] = &[
        (&["dead-letters", "list"], false),
        (&["dead-letters", "groups"], false),
        (&["dead-letters", "show", LETTER], false),
        (&["dead-letters", "plan"], false),
        (&["dead-letters", "dry-run", "--all"], false),
        (&["dead-letters", "replay", "--all", "--detach"], true),
        (&["dead-letters", "replay", "list"], false),
        (&["dead-letters", "replay", "show", REPLAY], false),
        (&["dead-letters", "replay", "watch", REPLAY], false),
        (&["dead-letters", "replay", "resume", REPLAY], true),
        (&["dead-letters", "replay", "pause", REPLAY], true),
        (&["dead-letters", "replay", "cancel", REPLAY], true),
        (&["dead-letters", "edit", LETTER, "--remove"], true),
        (&["dead-letters", "discard", "--all"], true),
        (&["parked", "list"], false),
        (&["parked", "show", "orders", ORDER], false),
        (&["outbox", "status"], false),
        (&["outbox", "republish", "--from-id", "1", "--to-id", "9"], true),
        (&["saga", "list"], false),
        (&["saga", "show", "place-order", ORDER], false),
        (&["saga", "retry", "place-order", ORDER], true),
        (&["saga", "skip", "place-order", ORDER], true),
        (&["saga", "abandon", "place-order", ORDER], true),
        (&["order", "explain", ORDER, "--without-kafka"], false),
        (&["audit", "list"], false),
    ];
    lines.iter().map(|(line, changes)| (line.to_vec(), *changes)).collect()
}

/// Orders, which answers everything that is asked here.
async fn orders() -> Doubles {
    let doubles = Doubles::serve().await;
    let orders = &doubles.orders;
    letters(orders);
    let parked = json!({"group": "orders", "key": ORDER, "state": "retrying", "tier": 2,
        "due_at": "2026-05-04T10:05:00Z", "attempts": 3, "error_class": "retry", "error_message": "away",
        "dead_letter_id": null, "held_count": 0, "held_bytes": 0, "parked_at": "2026-05-04T10:00:00Z",
        "head_message_id": "01980000-0000-7000-8000-0000000000e2", "held": []});
    orders.lists("GET /parked", json!([parked]));
    orders.says(&format!("GET /parked/orders/{ORDER}"), parked);
    orders.says(
        "GET /outbox",
        json!({"position": null, "lease": null, "oldest_unpublished_at": null, "unpublished_rows": 0, "partitions": []}),
    );
    orders.says(
        "POST /outbox/republish",
        json!({"rows": 3, "topics": [{"topic": "orders.events", "count": 3, "bytes": 300}],
        "first_at": "2026-05-04T10:00:00Z", "last_at": "2026-05-04T10:01:00Z", "applied": false}),
    );
    let saga = json!({"saga": "place-order", "key": ORDER, "version": 5, "status": "stuck", "step": "capture",
        "phase": "act", "attempts": 8, "due_at": null, "correlation_id": ORDER, "reason": null,
        "created_at": "2026-05-04T10:00:00Z", "updated_at": "2026-05-04T10:30:00Z", "stuck_why": "refused",
        "data": {"total_minor": 2999}, "log": []});
    orders.lists("GET /sagas", json!([saga]));
    orders.says(&format!("GET /sagas/place-order/{ORDER}"), saga.clone());
    for verb in ["retry", "skip", "abandon"] {
        orders.says(&format!("POST /sagas/place-order/{ORDER}/{verb}"), saga.clone());
    }
    orders.says(&format!("GET /facts/{ORDER}"), explain::of_orders(""));
    let audit = json!({"id": 1, "at": "2026-05-04T10:00:01Z", "subject": "ana", "action": "dead_letters.discard",
        "target": "{}", "reason": "over", "outcome": "3 discarded", "trace_id": null});
    orders.lists("GET /audit", json!([audit]));
    doubles
}

fn letters(orders: &crate::double::Double) {
    orders.lists("GET /dead-letters", json!([letter(LETTER)]));
    let mut edited = detail(LETTER);
    edited["patch"] = json!({"payload_base64": base64(&golden_frame("orders/OrderPlaced.1")), "edited_by": "ana",
        "edited_at": "2026-05-04T12:00:00Z", "reason": "typo"});
    orders.says(&format!("GET /dead-letters/{LETTER}"), edited);
    orders.says(&format!("POST /dead-letters/{LETTER}/edit"), detail(LETTER));
    orders.says("POST /dead-letters/plan", plan(4));
    orders.says("POST /dead-letters/discard", json!({"discarded": 4}));
    let failure = json!({"failure_group": "0123456789abcdef", "group": "orders", "kind": "StockRejected",
        "error_class": "rejected", "message": "no saga of <uuid>", "count": 23000, "keys": 700,
        "first_failed_at": "2026-05-04T10:00:00Z", "last_failed_at": "2026-05-04T11:00:00Z", "example": LETTER});
    orders.lists("GET /failure-groups", json!([failure]));
    let tried = json!({"id": LETTER, "key": ORDER, "outcome": "done", "why": null, "patched": false, "messages": [],
        "writes": [{"table": "orders", "operation": "update", "before": {"version": 1}, "after": {"version": 2}}]});
    orders.says("POST /dead-letters/dry-run", json!({"items": [tried], "total": 1}));
    let replay = json!({"id": REPLAY, "state": "finished", "total": 4, "sent": 4, "resolved": 4, "failed": 0, "skipped": 0,
        "retrying": 0, "remaining": 0, "filter": {}, "reason": "mended", "by": "ana", "rate_per_s": 50, "ramp": true,
        "stop_after_failures": 5, "created_at": "2026-05-04T10:00:00Z", "updated_at": "2026-05-04T10:00:01Z",
        "stop_reason": null});
    orders.lists("GET /replays", json!([replay]));
    orders.says(&format!("GET /replays/{REPLAY}"), replay.clone());
    orders.says_with("POST /replays", 202, replay.clone());
    for verb in ["resume", "pause", "cancel"] {
        orders.says(&format!("POST /replays/{REPLAY}/{verb}"), replay.clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_json_of_every_verb() {
    let doubles = orders().await;
    let mut families: Vec<(&str, String)> = Vec::new();
    for (line, changes) in lines() {
        let mut told = String::new();
        let both: &[&[&str]] = &[&[], &APPLY];
        for apply in if changes { both } else { &both[..1] } {
            for form in [&[][..], &["--json"]] {
                let typed = [&line[..], apply, form].concat();
                let run = doubles.ctl(&[&typed[..], &["--service", "orders"]].concat());
                assert_eq!(run.status.code(), Some(0), "{typed:?}: {}", text(&run.stderr));
                let said = text(&run.stdout);
                assert!(form.is_empty() || serde_json::from_str::<Value>(said).is_ok(), "{typed:?}: {said}");
                // Writing into a String does not fail.
                let _ = writeln!(told, "=== {}\n{said}", typed.join(" "));
            }
        }
        match families.last_mut() {
            Some((family, all)) if *family == line[0] => all.push_str(&told),
            _ => families.push((line[0], told)),
        }
    }
    for (family, told) in families {
        insta::assert_snapshot!(format!("answers_of_{}", family.replace('-', "_")), told);
    }
}

#[test]
fn no_verb_is_left_out() {
    let shown = lines();
    let left_out: BTreeSet<String> = verbs(&[])
        .into_iter()
        .filter(|verb| {
            let words: Vec<&str> = verb.split(' ').collect();
            !ELSEWHERE.contains(&words[0]) && !shown.iter().any(|(line, _)| line.starts_with(&words))
        })
        .collect();
    assert!(left_out.is_empty(), "no snapshot shows what these print: {left_out:?}");
}
