//! What the program says about itself, and how it ends when it can not do what was asked.

use crate::{text, waybillctl};

const MANUAL: &str = include_str!("../../../docs/waybillctl.md");

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

/// Every verb that is told by `--help`, from the top down.
pub(crate) fn verbs(of: &[&str]) -> Vec<String> {
    let help = waybillctl(&[of, &["-h"]].concat());
    assert_eq!(help.status.code(), Some(0), "{of:?}: {}", text(&help.stderr));
    let commands = text(&help.stdout).lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.take_while(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let below: Vec<String> = names.flat_map(|name| verbs(&[of, &[name]].concat())).collect();
    // `dead-letters replay` is a verb and has verbs.
    let itself = below.is_empty() || of == ["dead-letters", "replay"];
    let itself = itself.then(|| of.join(" "));
    itself.into_iter().chain(below).collect()
}

#[test]
fn the_manual_names_every_verb_and_no_other() {
    let rows = MANUAL.lines().skip_while(|line| !line.starts_with("| verb |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("| `"));
    let mut told: Vec<String> = rows.filter_map(|row| Some(row.split('`').nth(1)?.to_owned())).collect();
    told.sort();
    let mut has = verbs(&[]);
    has.sort();
    assert_eq!(told, has);
}

#[test]
fn manual_and_help_tell_the_same_exit_codes() {
    let help = waybillctl(&["--help"]);
    let told: Vec<&str> =
        text(&help.stdout).lines().skip_while(|line| *line != "Exit codes:").skip(1).collect();
    let told: Vec<&str> = told.into_iter().take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    let rows = MANUAL.lines().skip_while(|line| !line.starts_with("| exit code |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("| "));
    let manual: Vec<String> = rows.map(|row| row.trim_matches(['|', ' ']).replace(" | ", "  ")).collect();
    assert_eq!(told, manual);
    assert_eq!(told.len(), 4);
}
