//! The rules of deploy/alerts: what they are about, that each is tried, and that Prometheus' own tool finds them right.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Labels that Prometheus gives to whatever it scrapes.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// What an alert looks at.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    alerts: String,
    metric: String,
    labels: Vec<String>,
}

impl Series {
    /// Whether these metrics have it.
    pub(crate) fn is_in(&self, told: &str) -> bool {
        told.lines().any(|line| {
            let Some(rest) = line.strip_prefix(&self.metric) else { return false };
            let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |all| all.0);
            let has = |label: &String| labels.split(',').any(|one| one.starts_with(&format!("{label}=")));
            rest.starts_with(['{', ' ']) && self.labels.iter().all(has)
        })
    }
}

/// Every metric of every rule, and the labels by which the rule tells its series apart.
pub(crate) fn series_of_the_alerts() -> BTreeSet<Series> {
    let mut series = BTreeSet::new();
    for file in rules() {
        let text = std::fs::read_to_string(&file).unwrap();
        let alerts = file.file_name().unwrap().to_string_lossy().into_owned();
        for expression in expressions(&text) {
            // `max by (group) (dead_letters_open) > 0`: the labels, then the metric they are of.
            let mut labels = Vec::new();
            let mut words = words(&expression).into_iter().peekable();
            while let Some(word) = words.next() {
                if word == "by" {
                    let named = words.by_ref().skip_while(|word| word == "(").take_while(|word| word != ")");
                    labels = named.filter(|label| !OF_PROMETHEUS.contains(&label.as_str())).collect();
                } else if word.contains('_') {
                    series.insert(Series { alerts: alerts.clone(), metric: word, labels: labels.clone() });
                }
            }
        }
    }
    series
}

/// Names and parentheses.
fn words(expression: &str) -> Vec<String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    spaced
        .split(|c: char| !c.is_ascii_alphanumeric() && !"_()".contains(c))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The rules' expressions, of one line or of several that are set in deeper.
fn expressions(rules: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((indent, first)) = line.split_once("expr: ") else { continue };
        let mut expression = first.trim_start_matches(">-").to_owned();
        while let Some(more) = lines.next_if(|next| next.starts_with(&format!("{indent}  "))) {
            expression += more;
        }
        found.push(expression);
    }
    found
}

#[test]
fn expressions_of_one_line_and_of_several_are_found() {
    let rules = "  - alert: A\n    expr: max by (a, job) (m_n) > 0\n    for: 1m\n    expr: >-\n      x_y[5m]\n      or z_z\n    for: 1m\n";
    assert_eq!(expressions(rules), ["max by (a, job) (m_n) > 0", "      x_y[5m]      or z_z"]);
    assert_eq!(
        words("sum by (a) (f(m_n[10m])) > 1"),
        ["sum", "by", "(", "a", ")", "(", "f", "(", "m_n", "10m", ")", ")", "1"]
    );
}

/// Each alert is named, sends its reader to a runbook that exists, and is tried both ways by its file of tests.
#[test]
fn every_alert_has_a_runbook_and_is_tried_silent_and_firing() {
    for file in rules() {
        let text = std::fs::read_to_string(&file).unwrap();
        let tests = file.to_string_lossy().replace(".rules.yml", ".test.yml");
        let tests = std::fs::read_to_string(&tests).unwrap();
        let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
        assert!(!alerts.is_empty(), "{}", file.display());
        for alert in alerts {
            let name = alert.lines().next().unwrap();
            let runbook = alert.lines().find_map(|line| line.trim().strip_prefix("runbook: "));
            let there = |runbook: &str| root().join(runbook).is_file();
            assert!(runbook.is_none_or(there), "{name}: {runbook:?} is not there");
            assert!(tests.contains(&format!("alertname: {name}}}")), "{name} is never seen silent");
            assert!(
                tests.contains(&format!("alertname: {name}\n        exp_alerts:")),
                "{name} is never seen to fire"
            );
        }
    }
}

/// Prometheus' own tool reads every rule, and tries every alert on the series that the tests beside the rules tell of.
#[test]
fn promtool_tries_every_alert() {
    let Some(promtool) = std::env::var_os("WAYBILL_PROMTOOL") else {
        panic!("WAYBILL_PROMTOOL is not set: run `cargo xtask test -p waybill-e2e`, which fetches it")
    };
    for file in rules() {
        let tests = file.to_string_lossy().replace(".rules.yml", ".test.yml");
        for (what, file) in [("check", file.as_path()), ("test", Path::new(&tests))] {
            let run = Command::new(&promtool).args([what, "rules"]).arg(file).output().unwrap();
            let said = [run.stdout, run.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(run.status.success() && said.contains("SUCCESS"), "{what} {}: {said}", file.display());
        }
    }
}

fn rules() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("deploy/alerts")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.to_string_lossy().ends_with(".rules.yml")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
