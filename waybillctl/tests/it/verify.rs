//! `waybillctl verify` where it can not look; what it finds is tested from end to end (`e2e/`).

use crate::{text, waybillctl};

/// Nobody listens on port 1.
const AWAY: &str = "orders=postgres://me:secret@127.0.0.1:1/o,inventory=postgres://127.0.0.1:1/i,payments=postgres://127.0.0.1:1/p";

#[test]
fn databases_that_are_away_end_with_1_and_not_with_nothing_found() {
    let run = waybillctl(&["verify", "--databases", AWAY, "--bootstrap-servers", "127.0.0.1:1", "--json"]);
    assert_eq!(run.status.code(), Some(1));
    let said = text(&run.stderr);
    assert!(said.contains("the database of orders can not be looked at"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    assert!(run.stdout.is_empty());
}

#[test]
fn databases_must_be_named() {
    assert_eq!(waybillctl(&["verify"]).status.code(), Some(2));
    let run = waybillctl(&["verify", "--databases", "orders=postgres://127.0.0.1:1/o"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("inventory is missing"), "{}", text(&run.stderr));
}
