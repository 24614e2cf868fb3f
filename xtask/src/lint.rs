//! `cargo xtask lint`: every check on the code, the same here and in CI.
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Command as Line};

use crate::arguments::{Choice, chosen, one_of};
use crate::layout::Layout;
use crate::prerequisites::{self, Need};
use crate::stop::{Stop, Stopped};
use crate::{binaries, run, say};

mod arrows;
mod first_line;
mod lengths;
mod rust_source;
mod tracked;

/// Arguments of `lint`.
#[derive(Debug)]
pub(crate) struct LintArgs {
    checks: Vec<Check>,
}

impl LintArgs {
    pub(crate) fn describe(line: Line) -> Line {
        let checks = Arg::new("checks").action(ArgAction::Append).num_args(0..);
        line.arg(checks.value_parser(one_of::<Check>()).help("The checks to run; all of them when left out"))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self { checks: chosen(matches, "checks") }
    }
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    FirstLine,
    Lengths,
    Arrows,
    Fmt,
    Deny,
    Clippy,
}

/// Quick ones first.
impl Choice for Check {
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        (
            "first-line",
            Self::FirstLine,
            "Every tracked source, script and document begins with a line that says its job",
        ),
        ("lengths", Self::Lengths, "Files over 400 and functions over 70 lines"),
        ("arrows", Self::Arrows, "Dependencies point one way, between crates and inside a service"),
        ("fmt", Self::Fmt, "rustfmt"),
        ("deny", Self::Deny, "cargo-deny: known-bad versions, licences, sources; offline"),
        ("clippy", Self::Clippy, "clippy with warnings as errors"),
    ];
}

/// What a check found: findings fail it, notes are only told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    findings: Vec<String>,
    notes: Vec<String>,
}

/// Runs all checks, also after one failed, and tells what each found.
pub(crate) fn run(args: &LintArgs) -> Result<ExitCode> {
    let layout = Layout::find()?;
    let stop = Stop::on_signals()?;
    prerequisites::ensure(&[Need::Git, Need::RustTools], &stop)?;
    let every = Check::WORDS.iter().map(|(_, check, _)| *check);
    let checks = if args.checks.is_empty() { every.collect() } else { args.checks.clone() };
    let mut failed = Vec::new();
    for check in checks {
        let name = check.word();
        say::progress(&format!("lint {name} ..."));
        let began = Instant::now();
        match check.run(&layout, &stop) {
            Err(error) if error.is::<Stopped>() => return Ok(ExitCode::from(130)),
            Err(error) => {
                say::error(&error);
                failed.push(name);
            }
            Ok(report) => {
                tell(&report);
                let verdict = if report.findings.is_empty() { "ok" } else { "FAILED" };
                say::progress(&format!("lint {name}: {verdict} ({:.1} s)", began.elapsed().as_secs_f64()));
                if !report.findings.is_empty() {
                    failed.push(name);
                }
            }
        }
    }
    if failed.is_empty() {
        say::progress("lint: all checks passed");
        return Ok(ExitCode::SUCCESS);
    }
    say::progress(&format!("lint: failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

fn tell(report: &Report) {
    for note in &report.notes {
        say::progress(&format!("  note: {note}"));
    }
    for finding in &report.findings {
        say::progress(&format!("  {finding}"));
    }
}

impl Check {
    fn run(self, layout: &Layout, stop: &Stop) -> Result<Report> {
        match self {
            Self::FirstLine => first_line::check(layout),
            Self::Lengths => lengths::check(layout),
            Self::Arrows => arrows::check(layout),
            Self::Fmt => cargo(layout, &["fmt", "--all", "--check"], "run `cargo fmt --all`", stop),
            Self::Deny => deny(layout, stop),
            Self::Clippy => clippy(layout, stop),
        }
    }
}

fn deny(layout: &Layout, stop: &Stop) -> Result<Report> {
    prerequisites::ensure(&[Need::CargoDeny], stop)?;
    // Also of what other platforms would compile, which a build here does not fetch: cargo-deny reads every manifest.
    run::tool(binaries::cargo(layout).args(["fetch", "--locked"]), stop)
        .context("could not fetch the dependencies")?;
    let args = ["deny", "--offline", "check", "bans", "licenses", "sources"];
    let mut report = cargo(layout, &args, "deny.toml says why each rule is there", stop)?;
    let rules = std::fs::read_to_string(layout.root.join("deny.toml")).context("could not read deny.toml")?;
    report.findings.extend(lame_bans(&rules));
    Ok(report)
}

/// Bans that look like a range and are none: cargo-deny takes `crate = "x@<2"` for the one version 2.
fn lame_bans(rules: &str) -> Vec<String> {
    let lame = |line: &str| {
        let line = line.split_once('#').map_or(line, |(rule, _)| rule);
        line.split_once("crate = \"").is_some_and(|(_, name)| name.contains("@<") || name.contains("@>"))
    };
    let lines = rules.lines().enumerate().filter(|(_, line)| lame(line));
    lines
        .map(|(at, _)| {
            format!("deny.toml:{}: a range needs `name` and `version`, or it bans nothing", at + 1)
        })
        .collect()
}

fn clippy(layout: &Layout, stop: &Stop) -> Result<Report> {
    prerequisites::ensure(&[Need::Compilers], stop)?;
    let args = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    cargo(layout, &args, "the lints are set in Cargo.toml and clippy.toml", stop)
}

/// A cargo command as a check: its own output tells the details.
fn cargo(layout: &Layout, args: &[&str], advice: &str, stop: &Stop) -> Result<Report> {
    let mut command: Command = binaries::cargo(layout);
    let status =
        run::status(command.args(args), stop).with_context(|| format!("could not run cargo {}", args[0]))?;
    let finding = (!status.success()).then(|| format!("`cargo {}` failed: {advice}", args.join(" ")));
    Ok(Report { findings: finding.into_iter().collect(), notes: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_ban_without_effect_is_found() {
        let rules = "deny = [\n { name = \"a\", version = \"<2\" },\n { crate = \"b@<2\" },\n]";
        assert_eq!(lame_bans(rules), ["deny.toml:3: a range needs `name` and `version`, or it bans nothing"]);
    }

    #[test]
    fn a_failing_cargo_command_is_a_finding() {
        let layout = Layout::find().unwrap();
        let report = cargo(&layout, &["no-such-command"], "advice", &Stop::default()).unwrap();
        assert_eq!(report.findings, ["`cargo no-such-command` failed: advice"]);
    }
}
