//! `waybillctl schemas`: the committed contract is in order, what is not is named, and a registry gets the pinned ids.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use waybill_events::KNOWN;

use crate::registry::Registry;
use crate::{schemas_folder, text, waybillctl};

/// A copy of the contract in a git repository of its own, removed at the end.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("waybill-schemas-{}", uuid::Uuid::now_v7()));
        run(Command::new("cp").arg("-r").arg(schemas_folder()).arg(&folder));
        for arguments in [
            &["init", "-q"][..],
            &["add", "."],
            &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "released"],
        ] {
            run(Command::new("git").arg("-C").arg(&folder).args(arguments));
        }
        Self(folder)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.0.join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(before.contains(from), "{file} has no {from}");
        std::fs::write(path, before.replacen(from, to, 1)).unwrap();
    }

    fn check(&self) -> Output {
        waybillctl(&["schemas", "check", "--schemas", path(&self.0)])
    }

    fn found_wrong(&self, what: &str) {
        let run = self.check();
        assert_eq!(run.status.code(), Some(3), "{}{}", text(&run.stdout), text(&run.stderr));
        assert!(text(&run.stdout).contains(what), "{what}: {}", text(&run.stdout));
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[test]
fn the_committed_contract_is_in_order() {
    let run = waybillctl(&["schemas", "check", "--schemas", path(&schemas_folder())]);
    assert_eq!(run.status.code(), Some(0), "{}{}", text(&run.stdout), text(&run.stderr));
    assert_eq!(text(&run.stdout), format!("{} messages, 0 wrong; compared with commit HEAD\n", KNOWN.len()));
}

#[test]
fn what_breaks_the_contract_is_named() {
    let copy = Copy::new();
    copy.edit("orders/OrderPlaced.avsc", "\"doc\": \"A customer", "\"doc\": \"Somebody");
    assert_eq!(copy.check().status.code(), Some(0), "documentation may change");
    copy.edit("orders/OrderPlaced.avsc", "\"name\": \"total_minor\"", "\"name\": \"sum_minor\"");
    copy.found_wrong("waybill.orders.OrderPlaced: id 1 was released with another schema");
    copy.found_wrong("case \"usual\" is read to another value");
    // As a new version it would have an id of its own, and no golden bytes yet.
    copy.edit("ids.json", "\"waybill.orders.OrderPlaced\": 1,", "\"waybill.orders.OrderPlaced\": 28,");
    copy.found_wrong("the version released under id 1: this schema can not read it");
    copy.edit("ids.json", "  \"waybill.orders.OrderConfirmed\": 2,\n", "");
    copy.found_wrong("OrderConfirmed.avsc has no id");
    copy.found_wrong("waybill.orders.OrderConfirmed: commit HEAD has it, and here it is gone");
}

#[test]
fn without_history_it_says_where_to_look() {
    let copy = Copy::new();
    let run = waybillctl(&["schemas", "check", "--schemas", path(&copy.0), "--against", "v9"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("(--registry)"), "{}", text(&run.stderr));
    let nowhere = waybillctl(&["schemas", "check", "--schemas", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("/nonexistent/ids.json can not be read"));
}

fn against(registry: &Registry, verb: &str, more: &[&str]) -> Output {
    waybillctl(&[&["schemas", verb, "--registry", &registry.url], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn push_plans_and_then_registers_under_the_pinned_ids() {
    for knows_modes in [true, false] {
        let registry = Registry::serve(knows_modes).await;
        let plan = against(&registry, "push", &[]);
        assert_eq!(plan.status.code(), Some(3), "{}", text(&plan.stderr));
        assert!(registry.held.lock().unwrap().subjects.is_empty(), "a plan changes nothing");
        let push = against(&registry, "push", &["--apply", "--json"]);
        assert_eq!(push.status.code(), Some(0), "{}", text(&push.stderr));
        let report: Value = serde_json::from_slice(&push.stdout).unwrap();
        assert_eq!(report["registered"].as_array().unwrap().len(), KNOWN.len());
        for known in KNOWN {
            let held = registry.held.lock().unwrap();
            assert_eq!(held.subjects[known.name][0].0, known.schema_id, "{}", known.name);
        }
        assert_eq!(against(&registry, "check", &[]).status.code(), Some(0));
        let again = against(&registry, "push", &["--apply"]);
        let all = KNOWN.len();
        assert_eq!(
            text(&again.stdout),
            format!("{all} as they are, 0 registered, 0 missing, 0 wrong\n"),
            "twice does no harm"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_push_prints_word_for_word() {
    let registry = Registry::serve(true).await;
    for (name, code, more) in [
        ("schemas_push_plan", 3, &[][..]),
        ("schemas_push_plan_json", 3, &["--json"]),
        ("schemas_push", 0, &["--apply"]),
        ("schemas_push_json", 0, &["--apply", "--json"]),
    ] {
        let run = against(&registry, "push", more);
        assert_eq!(run.status.code(), Some(code), "{}", text(&run.stderr));
        insta::assert_snapshot!(name, text(&run.stdout).replace(&registry.url, "REGISTRY"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_has_otherwise_is_named_and_nothing_is_pushed() {
    let registry = Registry::serve(true).await;
    let known = &KNOWN[0];
    registry.add(known.name, 77, known.schema);
    let push = against(&registry, "push", &["--apply"]);
    assert_eq!(push.status.code(), Some(3));
    let said = text(&push.stdout);
    assert!(said.contains("its frames carry id 1, and the same schema is released under id 77"), "{said}");
    assert!(said.contains("nothing was registered"), "{said}");
    assert_eq!(registry.held.lock().unwrap().subjects.len(), 1);

    let other = Registry::serve(false).await;
    other.add("somebody.else", 1, "\"string\"");
    let push = against(&other, "push", &["--apply"]);
    assert_eq!(push.status.code(), Some(1));
    assert!(text(&push.stderr).contains("needs id 1, which the registry"), "{}", text(&push.stderr));

    let unnamed = waybillctl(&["schemas", "push", "--apply"]);
    assert_eq!(unnamed.status.code(), Some(2));
    assert!(text(&unnamed.stderr).contains("no registry is named"), "{}", text(&unnamed.stderr));
    let no_url = waybillctl(&["schemas", "check", "--registry", "me:secret@registry"]);
    assert_eq!(no_url.status.code(), Some(2));
    assert!(!text(&no_url.stderr).contains("secret"), "{}", text(&no_url.stderr));

    let gone = waybillctl(&["schemas", "check", "--registry", "http://me:secret@127.0.0.1:1"]);
    assert_eq!(gone.status.code(), Some(1));
    let said = text(&gone.stderr);
    assert!(said.contains("http://127.0.0.1:1 can not be asked") && !said.contains("secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_record_subjects() {
    let registry = Registry::serve(true).await;
    let push = against(&registry, "push", &["--apply", "--subjects", "topic-record"]);
    assert_eq!(push.status.code(), Some(0), "{}", text(&push.stderr));
    assert!(registry.held.lock().unwrap().subjects.contains_key("orders.events-waybill.orders.OrderPlaced"));
}
