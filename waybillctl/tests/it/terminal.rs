//! On a terminal: a table fits it, and a running replay has a bar.

use std::process::{Command, Output};

use serde_json::json;

use crate::double::Doubles;
use crate::looks::plan;
use crate::text;

const COLUMNS: usize = 100;
const REPLAY: &str = "01980000-0000-7000-8000-0000000000b1";

/// The program on a terminal of [`COLUMNS`]; what it writes to it. (`script` gives a command a terminal of its own.)
fn on_a_terminal(doubles: &Doubles, arguments: &str) -> Output {
    let line = format!("stty cols {COLUMNS} rows 40; exec \"$WAYBILLCTL\" {arguments}");
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]).env("WAYBILLCTL", env!("CARGO_BIN_EXE_waybillctl"));
    script
        .env("TERM", "xterm")
        .env("WAYBILL_OPERATOR_URLS", doubles.urls())
        .env("WAYBILL_TOKEN", "let.me.in");
    script.output().unwrap_or_else(|error| panic!("script (of util-linux) can not be run: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_fits_and_ids_stay_whole() {
    let doubles = Doubles::serve().await;
    doubles.list_nothing("GET /audit");
    doubles.orders.forget("GET /audit");
    let long = "a reason of very many words that do not fit into a line together with all the rest of it";
    let entry = json!({"id": 1, "at": "2026-05-04T10:00:01Z", "subject": "ana", "action": "replays.create",
        "target": REPLAY, "reason": long, "outcome": "3 dead letters", "trace_id": null});
    doubles.orders.lists("GET /audit", json!([entry]));
    let run = on_a_terminal(&doubles, "audit list");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stdout));
    let said = text(&run.stdout).replace('\r', "");
    assert!(said.lines().count() > 2, "the reason is broken into lines: {said}");
    assert!(said.lines().all(|line| line.chars().count() <= COLUMNS), "{said}");
    assert!(said.contains(REPLAY), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_replay_has_a_bar() {
    let doubles = Doubles::serve().await;
    let replay = |state: &str, resolved: u64| {
        json!({"id": REPLAY, "state": state, "total": 10, "sent": resolved, "resolved": resolved, "failed": 0,
            "skipped": 0, "retrying": 0, "remaining": 10 - resolved, "filter": {}, "reason": "mended", "by": "ana",
            "rate_per_s": 50, "ramp": true, "stop_after_failures": 5, "created_at": "2026-05-04T10:00:00Z",
            "updated_at": "2026-05-04T10:00:01Z", "stop_reason": null})
    };
    doubles.orders.says("POST /dead-letters/plan", plan(10));
    doubles.inventory.says("POST /dead-letters/plan", plan(0));
    doubles.payments.says("POST /dead-letters/plan", plan(0));
    doubles.orders.says_with("POST /replays", 202, replay("running", 0));
    let path = format!("GET /replays/{REPLAY}");
    doubles.orders.says(&path, replay("running", 4));
    doubles.orders.says(&path, replay("finished", 10));
    let run = on_a_terminal(&doubles, "dead-letters replay --all --apply --reason mended");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stdout));
    let said = text(&run.stdout);
    assert!(said.contains("orders [") && said.contains("===>") && said.contains("4/10"), "{said:?}");
    assert!(!said.contains("4 of 10"), "lines are for where there is no terminal: {said:?}");
    assert!(said.contains("finished"), "the result is a table after it: {said:?}");
}
