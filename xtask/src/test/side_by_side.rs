//! Runs suites side by side: they wait more than they compute, for leases, deadlines and servers that start.
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::suites::Suite;
use super::summary::{self, Outcome};
use crate::stop::Stop;
use crate::{run, say};

/// Suites at a time. Each runs a test for every processor, so more would make all of them late.
const SIDE_BY_SIDE_MAX: usize = 2;
/// How often those that still run are named, in seconds: somebody may be watching.
const NEWS_INTERVAL_S: u64 = 60;
/// How often the end of all is looked for, in milliseconds.
const POLL_INTERVAL_MS: u64 = 100;

/// What the threads share.
struct Work<'a> {
    waiting: Mutex<VecDeque<&'a Suite>>,
    running: Mutex<Vec<&'a str>>,
    ended: Mutex<Vec<Outcome>>,
    variables: &'a [(OsString, OsString)],
    logs: &'a Path,
    stop: &'a Stop,
}

/// Runs all suites, in order, also after one failed. Each one's whole output is printed in one piece when it has ended.
pub(super) fn run(
    suites: &[Suite],
    variables: &[(OsString, OsString)],
    logs: &Path,
    stop: &Stop,
) -> Result<Vec<Outcome>> {
    let work = Work {
        waiting: Mutex::new(suites.iter().collect()),
        running: Mutex::default(),
        ended: Mutex::default(),
        variables,
        logs,
        stop,
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..SIDE_BY_SIDE_MAX).map(|_| scope.spawn(|| work.lane())).collect();
        let mut news = Instant::now();
        while !lanes.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(POLL_INTERVAL_MS));
            if news.elapsed() >= Duration::from_secs(NEWS_INTERVAL_S) {
                news = Instant::now();
                work.tell_news();
            }
        }
        lanes.into_iter().try_for_each(|lane| {
            lane.join().unwrap_or_else(|_| anyhow::bail!("a thread that runs tests failed"))
        })
    })?;
    Ok(work.ended.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl<'a> Work<'a> {
    /// One suite after the other until none waits. What can not be run or was stopped stops the others too.
    fn lane(&self) -> Result<()> {
        loop {
            let next = held(&self.waiting).pop_front();
            let Some(suite) = next else { return Ok(()) };
            held(&self.running).push(&suite.name);
            let ran = self.one(suite);
            held(&self.running).retain(|name| *name != suite.name);
            match ran {
                Ok(outcome) => held(&self.ended).push(outcome),
                Err(error) => {
                    held(&self.waiting).clear();
                    return Err(error);
                }
            }
        }
    }

    fn one(&self, suite: &Suite) -> Result<Outcome> {
        let log = self.log(&suite.name);
        say::progress(&format!("test {} ...", suite.name));
        let out = File::create(&log).with_context(|| format!("could not make {}", log.display()))?;
        let errors = out.try_clone().context("could not share the log between stdout and stderr")?;
        let mut command = suite.command();
        command.envs(self.variables.iter().cloned()).stdout(out).stderr(errors);
        let began = Instant::now();
        let ran = run::status(&mut command, self.stop);
        let took = began.elapsed();
        let output = std::fs::read(&log).with_context(|| format!("could not read {}", log.display()))?;
        let output = String::from_utf8_lossy(&output);
        let status = ran.with_context(|| format!("{} did not run to its end:\n{output}", suite.name))?;
        let counts = summary::counts(&output);
        let outcome = Outcome { name: suite.name.clone(), counts, succeeded: status.success(), took };
        let verdict = if outcome.passed() { "ok".to_owned() } else { format!("FAILED ({status})") };
        let head = format!("\n==== {}: {verdict}, {:.1} s ====", suite.name, took.as_secs_f64());
        say::answer(&format!("{head}\n{}", output.trim()));
        Ok(outcome)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("test-{}.log", name.replace('/', "-")))
    }

    fn tell_news(&self) {
        let running = held(&self.running).clone();
        let told = running.iter().map(|name| {
            let output = std::fs::read(self.log(name)).unwrap_or_default();
            let ended = String::from_utf8_lossy(&output).lines().filter(|line| is_verdict(line)).count();
            format!("{name} ({ended} tests done)")
        });
        say::progress(&format!("still at work: {}", told.collect::<Vec<_>>().join(", ")));
    }
}

/// Whether the line tells one test's end: `test NAME ... ok`.
fn is_verdict(line: &str) -> bool {
    line.starts_with("test ") && (line.ends_with("... ok") || line.ends_with("... FAILED"))
}

/// What the threads share, also after one of them failed.
fn held<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::scratch;

    const SUMMARY: &str =
        "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s";

    fn ran(test: &str, scripts: &[(&str, &str)]) -> Vec<Outcome> {
        let instance = scratch(test);
        let _owned = instance.own().unwrap();
        let suites: Vec<Suite> = scripts.iter().map(|(name, script)| Suite::of_shell(name, script)).collect();
        let variables = [(OsString::from("SUMMARY"), OsString::from(SUMMARY))];
        let mut outcomes = run(&suites, &variables, &instance.logs(), &Stop::default()).unwrap();
        outcomes.sort_by(|left, right| left.name.cmp(&right.name));
        std::fs::remove_dir_all(instance.dir()).unwrap();
        outcomes
    }

    #[test]
    fn every_suite_runs_and_each_failure_is_seen() {
        let good = "echo \"$SUMMARY\"";
        let scripts = [
            ("a/good", good),
            ("b/code", "echo \"$SUMMARY\"; exit 3"),
            ("c/silent", "exit 0"),
            ("d/good", good),
        ];
        let passed: Vec<bool> = ran("suites", &scripts).iter().map(Outcome::passed).collect();
        assert_eq!(passed, [true, false, false, true]);
    }

    #[test]
    fn two_run_at_the_same_time() {
        // Each waits for the other's mark: one after the other would wait in vain.
        let meet = |own: &str, other: &str| {
            format!(
                "touch {own}; for _ in $(seq 500); do [ -e {other} ] && echo \"$SUMMARY\" && exit; sleep 0.02; done"
            )
        };
        let marks = std::env::temp_dir().join(format!("waybill-xtask-meet-{}", std::process::id()));
        let mark = |name: &str| marks.with_extension(name).display().to_string();
        let (left, right) = (meet(&mark("l"), &mark("r")), meet(&mark("r"), &mark("l")));
        let outcomes = ran("meet", &[("left", &left), ("right", &right)]);
        assert!(outcomes.iter().all(Outcome::passed), "{outcomes:?}");
        for name in ["l", "r"] {
            std::fs::remove_file(mark(name)).unwrap();
        }
    }

    #[test]
    fn verdicts_are_told_from_other_lines() {
        assert!(is_verdict("test retry::order_is_kept ... ok"));
        assert!(!is_verdict("test result: ok. 1 passed"));
        assert!(!is_verdict("test slow has been running for over 60 seconds"));
    }
}
