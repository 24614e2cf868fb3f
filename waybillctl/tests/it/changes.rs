//! What changes something, against recorded answers: edits, discards, sagas, the outbox.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Output;

use base64::Engine as _;
use serde_json::{Value, json};
use waybill_events::orders::OrderPlaced;
use waybill_messaging::codec::decode;

use crate::double::Doubles;
use crate::looks::{LETTER, ORDER, detail, letter, plan};
use crate::{command, text};

/// A file of the test's own, removed at the end.
struct File(PathBuf);

impl File {
    fn new(ending: &str, content: &str) -> Self {
        let name = format!("waybillctl-{}.{ending}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn doubles() -> Doubles {
    let doubles = Doubles::serve().await;
    doubles.orders.says(&format!("GET /dead-letters/{LETTER}"), detail(LETTER));
    doubles.orders.says(&format!("POST /dead-letters/{LETTER}/edit"), detail(LETTER));
    doubles
}

/// The value of the one dead letter, as `show` gives it.
fn value(doubles: &Doubles) -> Value {
    let shown = doubles.ctl(&["dead-letters", "show", LETTER, "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    shown["decoded"]["original"]["value"].clone()
}

fn order_placed(payload_base64: &Value) -> OrderPlaced {
    let frame = base64::engine::general_purpose::STANDARD.decode(payload_base64.as_str().unwrap()).unwrap();
    decode(&frame).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_edited_beside_what_was_changed_before() {
    let doubles = Doubles::serve().await;
    let mut letter = detail(LETTER);
    letter["patch"] = json!({"payload_base64": "MA==", "headers": {"x": "1", "y": null}, "edited_by": "ana",
        "edited_at": "2026-05-04T12:00:00Z", "reason": "typo"});
    doubles.orders.says(&format!("GET /dead-letters/{LETTER}"), letter);
    doubles.orders.says(&format!("POST /dead-letters/{LETTER}/edit"), detail(LETTER));
    let shown = doubles.ctl(&["dead-letters", "show", LETTER]);
    assert!(
        text(&shown.stdout).contains("typo\n  header x: 1\n  without header y\n"),
        "{}",
        text(&shown.stdout)
    );
    let edit = |more: &[&str]| doubles.ctl(&[&["dead-letters", "edit", LETTER], more].concat());
    let wanted = ["--header", "y=a=b", "--header", "z=3", "--without-header", "ce_causationid"];
    let run = edit(&wanted);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let plan = "  without header ce_causationid\n  header x: 1\n  header y: a=b\n  header z: 3\n";
    assert!(text(&run.stdout).contains(plan), "{}", text(&run.stdout));
    let path = format!("/dead-letters/{LETTER}/edit");
    assert!(doubles.orders.posted(&path).is_empty(), "a plan changes nothing");
    let run = edit(&[&wanted[..], &["--apply", "--reason", "a foreign producer"]].concat());
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let expected = json!({"payload_base64": "MA==", "headers": {"ce_causationid": null, "x": "1", "y": "a=b", "z": "3"},
        "expect_edited_at": "2026-05-04T12:00:00Z", "reason": "a foreign producer"});
    assert_eq!(doubles.orders.posted(&path), [expected]);
    assert!(text(&edit(&["--header", "x=1"]).stdout).contains("nothing is changed"));
    for wrong in
        [&["--header", "x"][..], &["--header", "x=1", "--value", "f"], &["--header", "x=1", "--remove"]]
    {
        assert_eq!(edit(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_edited_from_a_file() {
    let doubles = doubles().await;
    let mut value = value(&doubles);
    value["total_minor"] = json!(3000);
    let file = File::new("json", &value.to_string());
    let edit = |more: &[&str]| {
        doubles.ctl(&[&["dead-letters", "edit", LETTER, "--value", file.path()], more].concat())
    };
    let run = edit(&[]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    insta::assert_snapshot!("edit_plan", text(&run.stdout));
    let path = format!("/dead-letters/{LETTER}/edit");
    assert!(doubles.orders.posted(&path).is_empty(), "a plan changes nothing");
    let run = edit(&["--apply", "--reason", "a wrong sum"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let posted = &doubles.orders.posted(&path)[0];
    assert_eq!(posted["reason"], "a wrong sum");
    assert_eq!(order_placed(&posted["payload_base64"]).total_minor, 3000);
    assert_eq!(
        posted.get("expect_edited_at"),
        Some(&Value::Null),
        "no patch was seen: another's is not lost"
    );
    let same = File::new("json", &self::value(&doubles).to_string());
    let run = doubles.ctl(&["dead-letters", "edit", LETTER, "--value", same.path(), "--json"]);
    let said: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(said, json!({"applied": false, "plan": "nothing is changed"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_consumer_could_read_is_refused() {
    let doubles = doubles().await;
    let good = value(&doubles);
    for (pointer, wrong, what) in [
        ("/lines/0/quantity", json!("2"), "lines[0].quantity is \"2\", and should be a whole number"),
        ("/order_id", json!("no uuid"), "the consumer would refuse it"),
        ("/currency", json!("euro"), "the consumer would refuse it"),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).unwrap() = wrong;
        let file = File::new("json", &value.to_string());
        let run = doubles.ctl(&[
            "dead-letters",
            "edit",
            LETTER,
            "--value",
            file.path(),
            "--apply",
            "--reason",
            "r",
        ]);
        assert_eq!(run.status.code(), Some(1));
        let said = text(&run.stderr);
        assert!(said.contains(what) && said.contains("is kept: mend it and give it with --value"), "{said}");
    }
    assert!(doubles.orders.posted(&format!("/dead-letters/{LETTER}/edit")).is_empty());
}

/// A folder of the test's own, in which editors find their drafts.
struct Drafts(PathBuf);

impl Drafts {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("waybillctl-drafts-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// `edit` with this editor, and the drafts that are left behind.
    fn edit(&self, doubles: &Doubles, editor: &str, more: &[&str]) -> (Output, Vec<String>) {
        let mut run = command(&[&["dead-letters", "edit", LETTER], more].concat());
        run.env("WAYBILL_OPERATOR_URLS", doubles.urls()).env("WAYBILL_TOKEN", "let.me.in");
        let run = run.env("TMPDIR", &self.0).env_remove("VISUAL").env("EDITOR", editor).output().unwrap();
        let left = std::fs::read_dir(&self.0).unwrap();
        (run, left.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned()).collect())
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const APPLY: [&str; 3] = ["--apply", "--reason", "a wrong sum"];

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_is_opened() {
    let (doubles, drafts) = (doubles().await, Drafts::new());
    let (run, left) = drafts.edit(&doubles, "sed -i s/2999/3001/", &APPLY);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let posted = &doubles.orders.posted(&format!("/dead-letters/{LETTER}/edit"))[0];
    assert_eq!(order_placed(&posted["payload_base64"]).total_minor, 3001);
    assert!(left.is_empty(), "what is saved needs no copy here: {left:?}");
    let (run, left) = drafts.edit(&doubles, "true", &[]);
    assert_eq!((text(&run.stdout), left.len()), ("nothing is changed\n", 0));
    let (run, left) = drafts.edit(&doubles, "false", &APPLY);
    assert_eq!((run.status.code(), left.len()), (Some(1), 0), "an editor that gave up leaves nothing behind");
    let (run, left) = drafts.edit(&doubles, "", &APPLY);
    assert_eq!((run.status.code(), left.len()), (Some(2), 0));
    assert!(text(&run.stderr).contains("no editor: set EDITOR"), "{}", text(&run.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_is_not_saved_is_kept_and_named() {
    let doubles = doubles().await;
    let refusal = json!({"error": {"code": "edited_meanwhile", "message": "olga was here", "details": []}});
    for (editor, more, code) in [
        ("sed -i s/2999/3001/", &[][..], 0),
        ("sed -i s/2999/none/", &APPLY, 1),
        ("sed -i s/2999/3001/", &APPLY, 1),
    ] {
        let path = format!("POST /dead-letters/{LETTER}/edit");
        doubles.orders.forget(&path);
        doubles.orders.says_with(&path, 409, refusal.clone());
        let drafts = Drafts::new();
        let (run, left) = drafts.edit(&doubles, editor, more);
        let said = text(&run.stderr);
        assert_eq!((run.status.code(), left.len()), (Some(code), 1), "{said}");
        assert!(said.contains(&left[0]) && said.contains("--value"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_one_letter_is_of_that_letter_alone() {
    let doubles = doubles().await;
    for more in [&["--all"][..], &["--group", "orders"], &["--id", LETTER], &["--key", "k"]] {
        let run = doubles.ctl(&[&["dead-letters", "edit", LETTER, "--remove"], more].concat());
        assert_eq!(run.status.code(), Some(2), "{more:?}: {}", text(&run.stdout));
        assert!(text(&run.stderr).contains("cannot be used with"), "{}", text(&run.stderr));
    }
    let remove = [&["dead-letters", "edit", LETTER, "--remove"], &APPLY[..]].concat();
    let run = doubles.ctl(&remove);
    assert_eq!((run.status.code(), text(&run.stdout)), (Some(0), "nothing is changed\n"));
    assert!(doubles.orders.posted(&format!("/dead-letters/{LETTER}/edit")).is_empty(), "there is no patch");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_changed_with_a_program() {
    let doubles = doubles().await;
    let other = "01980000-0000-7000-8000-00000000000b";
    doubles.list_nothing("GET /dead-letters");
    let orders = crate::double::Double::serve().await;
    orders.lists("GET /dead-letters", json!([letter(LETTER), letter(other)]));
    orders.says("POST /dead-letters/values", json!({"items": [value_of(LETTER), value_of(other)]}));
    orders.says("POST /dead-letters/edit", json!({"edited": 2}));
    let doubles = Doubles { orders, ..doubles };
    let edit = |file: &File, more: &[&str]| {
        doubles.ctl(
            &[&["dead-letters", "edit", "--transform", file.path(), "--type", "OrderPlaced"], more].concat(),
        )
    };
    let jq = File::new("jq", "if .total_minor == 2999 then .total_minor = 3000 else . end");
    let run = edit(&jq, &[]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    insta::assert_snapshot!("transform_plan", text(&run.stdout));
    assert!(doubles.orders.posted("/dead-letters/edit").is_empty());
    let run = edit(&jq, &["--apply", "--reason", "tightened"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let posted = &doubles.orders.posted("/dead-letters/edit")[0];
    assert_eq!(posted["items"].as_array().unwrap().len(), 2);
    assert_eq!(order_placed(&posted["items"][1]["payload_base64"]).total_minor, 3000);
    let query = &doubles.orders.asked()[0].query;
    assert!(query.contains("kind=OrderPlaced&state=open"), "{query}");

    let patch = File::new("json", r#"[{"op": "replace", "path": "/currency", "value": "euro"}]"#);
    let run = edit(&patch, &["--apply", "--reason", "tightened"]);
    assert_eq!(run.status.code(), Some(3));
    assert!(
        text(&run.stdout).contains("0 changed, 0 unchanged, 2 can not be changed like this"),
        "{}",
        text(&run.stdout)
    );
    assert_eq!(doubles.orders.posted("/dead-letters/edit").len(), 1, "nothing is saved until all can be");
    let none = doubles.ctl(&["dead-letters", "edit", "--transform", jq.path()]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("say which dead letters"), "{}", text(&none.stderr));
}

/// What a replay would send of a letter, as services tell it.
fn value_of(id: &str) -> Value {
    json!({"id": id, "state": "open", "kind": "OrderPlaced", "patched": false,
           "payload_base64": detail(id)["payload_base64"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_hundred_are_changed_with_nine_requests() {
    let doubles = doubles().await;
    doubles.list_nothing("GET /dead-letters");
    let ids: Vec<String> = (0..1_200).map(|n| format!("01980000-0000-7000-8000-{n:012}")).collect();
    let orders = crate::double::Double::serve().await;
    for (place, page) in ids.chunks(500).enumerate() {
        let letters: Vec<Value> = page.iter().map(|id| letter(id)).collect();
        let next = (place < 2).then(|| format!("c{place}"));
        orders.says("GET /dead-letters", json!({"items": letters, "next_cursor": next}));
    }
    // Of the first five hundred, three hundred fit into one answer.
    for part in [&ids[..300], &ids[300..800], &ids[800..]] {
        let values: Vec<Value> = part.iter().map(|id| value_of(id)).collect();
        orders.says("POST /dead-letters/values", json!({"items": values}));
    }
    for edited in [500, 500, 200] {
        orders.says("POST /dead-letters/edit", json!({"edited": edited}));
    }
    let doubles = Doubles { orders, ..doubles };
    let jq = File::new("jq", ".total_minor = 3000");
    let run = doubles.ctl(&[
        "dead-letters",
        "edit",
        "--all",
        "--transform",
        jq.path(),
        "--apply",
        "--reason",
        "tightened",
        "--json",
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&report["changed"], &report["edited"]), (&json!(1_200), &json!(1_200)), "{report}");
    assert_eq!(text(&run.stderr), "", "progress is drawn on a terminal only");
    let asked: Vec<usize> = doubles
        .orders
        .posted("/dead-letters/values")
        .iter()
        .map(|body| body["ids"].as_array().unwrap().len())
        .collect();
    assert_eq!(asked, [500, 500, 400]);
    let saved = doubles.orders.posted("/dead-letters/edit");
    let named = saved.iter().flat_map(|body| body["items"].as_array().unwrap());
    assert!(named.map(|item| item["id"].as_str().unwrap()).eq(&ids), "each once, in its order");
    assert_eq!(doubles.orders.asked().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_names_how_many_it_means() {
    let doubles = doubles().await;
    doubles.all().iter().for_each(|double| {
        double.says("POST /dead-letters/plan", plan(0));
    });
    let orders = crate::double::Double::serve().await;
    orders
        .says("POST /dead-letters/plan", plan(4))
        .says("POST /dead-letters/discard", json!({"discarded": 4}));
    let doubles = Doubles { orders, ..doubles };
    let discard = ["dead-letters", "discard", "--failure-group", "0123456789abcdef"];
    let run = doubles.ctl(&discard);
    assert!(text(&run.stdout).ends_with("give them up with --apply --reason TEXT and the same options\n"));
    assert!(doubles.orders.posted("/dead-letters/discard").is_empty());
    let run = doubles.ctl(&[&discard[..], &["--apply", "--reason", "tests of May"]].concat());
    assert_eq!((run.status.code(), text(&run.stdout)), (Some(0), "4 dead letters discarded\n"));
    assert_eq!(
        doubles.orders.posted("/dead-letters/discard"),
        [json!({"filter": {"failure_group": "0123456789abcdef"}, "reason": "tests of May", "expect": 4})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_saga_is_mended_and_a_refusal_is_told() {
    let doubles = doubles().await;
    let saga = json!({
        "saga": "place_order", "key": ORDER, "version": 5, "status": "stuck", "step": "capture", "phase": "act",
        "attempts": 8, "due_at": null, "correlation_id": ORDER, "reason": null, "created_at": "2026-05-04T10:00:00Z",
        "updated_at": "2026-05-04T10:30:00Z", "stuck_why": "the provider refuses"
    });
    doubles.orders.says(&format!("GET /sagas/place_order/{ORDER}"), saga.clone());
    let run = doubles.ctl(&["saga", "retry", "place_order", ORDER]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    insta::assert_snapshot!("saga_retry_plan", text(&run.stdout));
    let refusal = json!({"detail": "d", "error": {"code": "wrong_state", "message": "saga is running, not stuck", "details": []}});
    doubles.orders.says_with(&format!("POST /sagas/place_order/{ORDER}/skip"), 409, refusal);
    let run = doubles.ctl(&["saga", "skip", "place_order", ORDER, "--apply", "--reason", "captured by hand"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("409 Conflict: saga is running, not stuck"), "{}", text(&run.stderr));
    doubles.orders.says(&format!("POST /sagas/place_order/{ORDER}/retry"), saga);
    let run = doubles.ctl(&["saga", "retry", "place_order", ORDER, "--apply", "--reason", "it is back"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert_eq!(
        doubles.orders.posted(&format!("/sagas/place_order/{ORDER}/retry")),
        [json!({"reason": "it is back"})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_published_again_after_the_plan() {
    let doubles = doubles().await;
    let made = json!({"rows": 3, "topics": [{"topic": "orders.events", "count": 3, "bytes": 300}],
        "first_at": "2026-05-04T10:00:00Z", "last_at": "2026-05-04T10:01:00Z", "applied": false});
    doubles.all().iter().for_each(|double| {
        double.says("POST /outbox/republish", made.clone());
    });
    let republish = [
        "outbox",
        "republish",
        "--service",
        "orders",
        "--from",
        "2026-05-04T10:00:00Z",
        "--to",
        "2026-05-04T11:00:00Z",
    ];
    let run = doubles.ctl(&republish);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    insta::assert_snapshot!("republish_plan", text(&run.stdout));
    let run = doubles.ctl(&[&republish[..], &["--apply", "--reason", "the broker lost them"]].concat());
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let posted = doubles.orders.posted("/outbox/republish");
    assert_eq!((&posted[0]["apply"], &posted[1]["apply"]), (&json!(false), &json!(true)));
    assert_eq!(posted[1]["reason"], "the broker lost them");
    assert_eq!(posted[1]["from"], "2026-05-04T10:00:00.000000Z");
    doubles.all().iter().for_each(|double| {
        let mut one = made.clone();
        one["searched_from"] = json!("2026-05-03T00:00:00Z");
        one["searched_to"] = Value::Null;
        double.says("POST /outbox/republish", one);
    });
    let id = "019df246-0000-7000-8000-000000000000";
    // The answer that names no days is given once more, then the one that does.
    for told in
        ["looked for in all rows", "looked for where the ids say: in rows made from 2026-05-03 00:00:00 on"]
    {
        let run = doubles.ctl(&["outbox", "republish", "--service", "orders", "--message-id", id]);
        assert!(text(&run.stdout).contains(told), "{}", text(&run.stdout));
    }
    let run = doubles.ctl(&["outbox", "republish", "--from-id", "1", "--to-id", "9"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("row numbers are one outbox's: name it with --service"));
    assert_eq!(doubles.ctl(&["outbox", "republish"]).status.code(), Some(2));
}
