//! What the program says about itself, and how it ends when it can not do what was asked.

use crate::{text, waybillctl};

#[test]
fn help_lists_the_verbs_and_the_exit_codes() {
    let help = waybillctl(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("topics"));
    assert!(text(&help.stdout).contains("3  looked at, and not as declared"));
    let help = waybillctl(&["topics", "plan", "--help"]);
    assert!(text(&help.stdout).contains("changes nothing"));
    assert!(text(&help.stdout).contains("KAFKA_BOOTSTRAP_SERVERS"));
}

#[test]
fn wrong_usage_ends_with_2() {
    for wrong in [
        &["topics"][..],
        &["topics", "delete"],
        &["topics", "plan", "--replication", "0"],
        &["topics", "plan", "--bootstrap-servers", ""],
        &["topics", "apply", "--force"],
    ] {
        let run = waybillctl(wrong);
        assert_eq!(run.status.code(), Some(2), "{wrong:?}: {}", text(&run.stderr));
        assert!(run.stdout.is_empty());
    }
}

#[test]
fn brokers_that_are_away_end_with_1_and_their_address() {
    let run = waybillctl(&["topics", "plan", "--bootstrap-servers", "127.0.0.1:1"]);
    assert_eq!(run.status.code(), Some(1));
    let said = text(&run.stderr);
    assert!(said.contains("the brokers at 127.0.0.1:1 did not list their topics"), "{said}");
    assert!(run.stdout.is_empty(), "could not look is not the same as nothing found");
}
