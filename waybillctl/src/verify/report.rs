//! What was looked at, what was found, and what was not judged: for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// Examples kept of each check: enough to see the pattern, whatever the number of violations.
const EXAMPLES_MAX: usize = 20;

/// What only an operator can bring forward, with how many of it there are. No violation: it is said, and owned.
pub(crate) type Waits = BTreeMap<&'static str, u64>;

/// `--json`, as a contract: fields are added, never changed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Whether no check found a violation.
    pub(crate) holds: bool,
    pub(crate) checks: Vec<Check>,
    pub(crate) waits_for_operator: Waits,
}

/// One promise and how it fared.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) promise: &'static str,
    /// Of orders, rows or records, as the promise speaks of.
    pub(crate) judged: u64,
    pub(crate) violations: u64,
    /// The first of them.
    pub(crate) examples: Vec<String>,
    /// Why some were not judged, and how many.
    pub(crate) not_judged: BTreeMap<&'static str, u64>,
}

impl Check {
    pub(crate) fn new(name: &'static str, promise: &'static str) -> Self {
        Self { name, promise, judged: 0, violations: 0, examples: Vec::new(), not_judged: BTreeMap::new() }
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) {
        self.violations += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what.into());
        }
    }

    pub(crate) fn not_judged(&mut self, why: &'static str, count: u64) {
        if count > 0 {
            *self.not_judged.entry(why).or_default() += count;
        }
    }
}

impl Report {
    pub(crate) fn add(&mut self, check: Check) {
        self.checks.push(check);
        self.holds = self.checks.iter().all(|check| check.violations == 0);
    }

    /// For people: a line a check, its examples below it.
    pub(crate) fn as_text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let verdict = if check.violations == 0 { "ok      " } else { "VIOLATED" };
            // Writing into a String does not fail.
            let _ = writeln!(text, "{verdict} {}: {} ({} judged)", check.name, check.promise, check.judged);
            for example in &check.examples {
                let _ = writeln!(text, "         - {example}");
            }
            let more = check.violations - check.examples.len() as u64;
            if more > 0 {
                let _ = writeln!(text, "         - and {more} more");
            }
            for (why, count) in &check.not_judged {
                let _ = writeln!(text, "         not judged: {count}, {why}");
            }
        }
        for (what, count) in &self.waits_for_operator {
            let _ = writeln!(text, "waits    {count} {what}: an operator's turn");
        }
        let violated = self.checks.iter().filter(|check| check.violations > 0).count();
        let _ = match violated {
            0 => write!(text, "{} promises hold", self.checks.len()),
            violated => write!(text, "{violated} of {} promises are broken", self.checks.len()),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_violation_breaks_the_whole_and_examples_are_bounded() {
        let mut report = Report::default();
        report.add(Check::new("stock", "all pieces are somewhere"));
        assert!(report.holds);
        let mut broken = Check::new("money", "it adds up");
        broken.not_judged("too young", 0);
        for number in 0..30 {
            broken.violation(format!("order {number}"));
        }
        report.add(broken);
        report.add(Check::new("keys", "one each"));
        assert!(!report.holds);
        let text = report.as_text();
        assert!(text.contains("VIOLATED money: it adds up (0 judged)\n         - order 0\n"), "{text}");
        assert!(text.contains("- order 19\n         - and 10 more\n"), "{text}");
        assert!(!text.contains("too young"), "{text}");
        assert!(text.ends_with("1 of 3 promises are broken"), "{text}");
    }

    #[test]
    fn what_is_printed_word_for_word() {
        let mut report = Report::default();
        let mut well = Check::new("stock", "all pieces are somewhere");
        well.judged = 12;
        well.not_judged("of a saga that is under way", 3);
        report.add(well);
        insta::assert_snapshot!("verify_holds", report.as_text());
        let mut broken = Check::new("money", "it adds up");
        broken.judged = 4;
        broken.violation("order 018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f: captured 100, and it is REJECTED");
        report.add(broken);
        report.waits_for_operator.insert("open dead letters", 2);
        insta::assert_snapshot!("verify_broken", report.as_text());
        insta::assert_snapshot!("verify_broken_json", serde_json::to_string(&report).unwrap());
    }
}
