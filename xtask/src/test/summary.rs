//! What suites told at their end, as a table: which, how many tests, how long.
use std::time::Duration;

/// Tests by their outcome, as libtest counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

/// One suite's end.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) name: String,
    /// `None`: it never told its summary.
    pub(super) counts: Option<Counts>,
    /// Whether it exited as a suite does whose tests all passed.
    pub(super) succeeded: bool,
    pub(super) took: Duration,
}

impl Outcome {
    /// A suite that ends well without saying so has not run its tests.
    pub(super) fn passed(&self) -> bool {
        self.succeeded && self.counts.is_some_and(|counts| counts.failed == 0)
    }
}

/// Reads the summaries in a suite's output; several, of documentation, are added up.
pub(super) fn counts(output: &str) -> Option<Counts> {
    output.lines().filter_map(of_line).reduce(|sum, next| Counts {
        passed: sum.passed + next.passed,
        failed: sum.failed + next.failed,
        ignored: sum.ignored + next.ignored,
    })
}

/// `test result: ok. 46 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 289.31s`.
fn of_line(line: &str) -> Option<Counts> {
    let told = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |word: &str| {
        let part = told.split("; ").find_map(|part| part.strip_suffix(word));
        part?.trim().parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
}

/// The table, longest first, without suites that hold no test.
pub(super) fn table(outcomes: &[Outcome], took: Duration) -> String {
    let mut rows: Vec<&Outcome> = outcomes.iter().collect();
    rows.retain(|row| !row.passed() || row.counts != Some(Counts::default()));
    rows.sort_by_key(|row| std::cmp::Reverse(row.took));
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default().max("together".len());
    let mut text = format!("{:width$}  passed  failed  ignored  seconds\n", "suite");
    let mut sum = Counts::default();
    for row in rows {
        let counts = row.counts.unwrap_or_default();
        sum.passed += counts.passed;
        sum.failed += counts.failed;
        sum.ignored += counts.ignored;
        let remark = match (row.passed(), row.counts) {
            (true, _) => "",
            (false, Some(_)) => "  FAILED",
            (false, None) => "  FAILED: it ended without its summary",
        };
        text += &(line(width, &row.name, counts, row.took) + remark + "\n");
    }
    text + &line(width, "together", sum, took)
}

fn line(width: usize, name: &str, counts: Counts, took: Duration) -> String {
    let Counts { passed, failed, ignored } = counts;
    format!("{name:width$}  {passed:>6}  {failed:>6}  {ignored:>7}  {:>7.1}", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "test a ... ok\n\ntest result: ok. 46 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; \
                        finished in 2.31s\n";

    fn outcome(name: &str, counts: Option<Counts>, succeeded: bool, seconds: u64) -> Outcome {
        Outcome { name: name.to_owned(), counts, succeeded, took: Duration::from_secs(seconds) }
    }

    #[test]
    fn summaries_are_read_and_added_up() {
        assert_eq!(counts(TOLD), Some(Counts { passed: 46, failed: 0, ignored: 3 }));
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        let both = counts(&(TOLD.to_owned() + failed));
        assert_eq!(both, Some(Counts { passed: 47, failed: 2, ignored: 3 }));
        assert_eq!(counts("thread 'main' panicked\n"), None);
    }

    #[test]
    fn silence_is_a_failure() {
        assert!(!outcome("a", None, true, 1).passed());
        assert!(!outcome("a", Some(Counts::default()), false, 1).passed());
        assert!(!outcome("a", Some(Counts { failed: 1, ..Counts::default() }), true, 1).passed());
        assert!(outcome("a", counts(TOLD), true, 1).passed());
    }

    #[test]
    fn the_table_names_what_ran_longest_first_and_what_failed() {
        let outcomes = [
            outcome("crates/http/src", counts(TOLD), true, 2),
            outcome("crates/empty/src", Some(Counts::default()), true, 1),
            outcome("e2e/tests/it", counts(TOLD), true, 90),
            outcome("xtask/src", None, false, 3),
        ];
        let table = table(&outcomes, Duration::from_secs(95));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "suite            passed  failed  ignored  seconds");
        assert_eq!(lines[1], "e2e/tests/it         46       0        3     90.0");
        assert_eq!(
            lines[2],
            "xtask/src             0       0        0      3.0  FAILED: it ended without its summary"
        );
        assert!(lines[3].starts_with("crates/http/src"));
        assert_eq!(lines[4], "together             92       0        6     95.0");
        assert_eq!(lines.len(), 5);
    }
}
