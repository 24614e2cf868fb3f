//! What is printed, word for word: the help of every verb, and the forms of those that do not only ask services.

use std::path::Path;

use serde_json::{Value, json};
use waybill_events::topics::topic;
use waybill_testkit::{TestTopics, kafka_bootstrap};

use crate::double::Doubles;
use crate::looks::{ORDER, plan};
use crate::usage::verbs;
use crate::{golden_frame, schemas_folder, text, waybillctl};

const REPLAY: &str = "01980000-0000-7000-8000-0000000000b1";

/// What a command that ends with `code` prints.
fn said(doubles: &Doubles, code: i32, arguments: &[&str]) -> String {
    let run = doubles.ctl(arguments);
    assert_eq!(run.status.code(), Some(code), "{arguments:?}: {}", text(&run.stderr));
    text(&run.stdout).to_owned()
}

#[test]
fn help_of_every_verb() {
    let mut groups: Vec<(String, String)> = Vec::new();
    for verb in verbs(&[]) {
        let words: Vec<&str> = verb.split(' ').collect();
        let help = waybillctl(&[&words[..], &["--help"]].concat());
        assert_eq!(help.status.code(), Some(0), "{verb}");
        let told = format!("=== {verb}\n{}\n", text(&help.stdout));
        match groups.last_mut() {
            Some((group, all)) if group == words[0] => all.push_str(&told),
            _ => groups.push((words[0].to_owned(), told)),
        }
    }
    for (group, all) in groups {
        insta::assert_snapshot!(format!("help_of_{}", group.replace('-', "_")), all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_and_a_plan_of_giving_up() {
    let doubles = Doubles::serve().await;
    let replay = |state: &str| {
        json!({"id": REPLAY, "state": state, "total": 10, "sent": 6, "resolved": 4, "failed": 1, "skipped": 1,
            "retrying": 0, "remaining": 4, "filter": {}, "reason": "mended", "by": "ana", "rate_per_s": 50,
            "ramp": true, "stop_after_failures": 5, "created_at": "2026-05-04T10:00:00Z",
            "updated_at": "2026-05-04T10:00:01Z", "stop_reason": null})
    };
    doubles.list_nothing("GET /replays");
    doubles.payments.forget("GET /replays");
    doubles.payments.lists("GET /replays", json!([replay("running")]));
    doubles.payments.says(&format!("GET /replays/{REPLAY}"), replay("running"));
    insta::assert_snapshot!("replay_list", said(&doubles, 0, &["dead-letters", "replay", "list"]));
    insta::assert_snapshot!(
        "replay_list_json",
        said(&doubles, 0, &["dead-letters", "replay", "list", "--json"])
    );
    insta::assert_snapshot!("replay_show", said(&doubles, 0, &["dead-letters", "replay", "show", REPLAY]));
    for (verb, state) in [("pause", "paused"), ("cancel", "cancelled")] {
        let change = ["dead-letters", "replay", verb, REPLAY];
        insta::assert_snapshot!(format!("replay_{verb}_plan"), said(&doubles, 0, &change));
        doubles.payments.says(&format!("POST /replays/{REPLAY}/{verb}"), replay(state));
        let done = said(&doubles, 0, &[&change[..], &["--apply", "--reason", "enough"]].concat());
        insta::assert_snapshot!(format!("replay_{verb}"), done);
    }
    doubles.all().iter().for_each(|double| {
        double.says("POST /dead-letters/plan", plan(0));
    });
    doubles.orders.forget("POST /dead-letters/plan");
    doubles.orders.says("POST /dead-letters/plan", plan(3));
    insta::assert_snapshot!(
        "discard_plan",
        said(&doubles, 0, &["dead-letters", "discard", "--group", "orders"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_as_text_and_as_json() {
    let topics = TestTopics::create(&[("orders.events", 1)]).await;
    for (id, kind, file) in
        [("e1", "OrderPlaced", "orders/OrderPlaced.1"), ("e2", "OrderConfirmed", "orders/OrderConfirmed.2")]
    {
        let headers = [("ce_id", id.as_bytes()), ("ce_type", kind.as_bytes())];
        topics.produce("orders.events", Some(ORDER.as_bytes()), &headers, Some(&golden_frame(file))).await;
    }
    let bootstrap = kafka_bootstrap();
    let shown = |verb: &str, more: &[&str]| {
        let here =
            ["events", verb, "orders.events", "--prefix", &topics.prefix, "--bootstrap-servers", &bootstrap];
        let run = waybillctl(&[&here[..], more].concat());
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        text(&run.stdout).replace(&topics.prefix, "")
    };
    let json = shown("get", &["--json"]);
    assert_eq!(json, shown("get", &[]), "JSON is what is printed unless told otherwise");
    let mut timeless = String::new();
    for line in json.lines() {
        let time = serde_json::from_str::<Value>(line).unwrap()["time"].as_str().unwrap().to_owned();
        timeless += &(line.replace(&time, "TIME") + "\n");
    }
    insta::assert_snapshot!("events_get_json", timeless);
    let text_form = shown("tail", &["--text"]);
    let timeless = text_form.lines().map(|line| format!("TIME {}\n", line.split_once(' ').unwrap().1));
    insta::assert_snapshot!("events_tail_text", timeless.collect::<String>());
    let both = waybillctl(&["events", "get", "--json", "--text"]);
    assert_eq!(both.status.code(), Some(2), "one form or the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_schemas_as_text_and_as_json() {
    let topics = TestTopics::create(&[(topic::ORDERS_EVENTS, 3)]).await;
    let bootstrap = kafka_bootstrap();
    let plan = |more: &[&str]| {
        let here = ["topics", "plan", "--prefix", &topics.prefix, "--bootstrap-servers", &bootstrap];
        let run = waybillctl(&[&here[..], more].concat());
        assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
        text(&run.stdout).replace(&topics.prefix, "").replace(&bootstrap, "BROKERS")
    };
    insta::assert_snapshot!("topics_plan", plan(&[]));
    insta::assert_snapshot!("topics_plan_json", plan(&["--json"]));
    let check = |more: &[&str]| {
        let folder: &Path = &schemas_folder();
        let run = waybillctl(&[&["schemas", "check", "--schemas", folder.to_str().unwrap()], more].concat());
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        text(&run.stdout).to_owned()
    };
    insta::assert_snapshot!("schemas_check", check(&[]));
    insta::assert_snapshot!("schemas_check_json", check(&["--json"]));
}
