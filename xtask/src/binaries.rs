//! Building Waybill's programs, and where they lie.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::layout::Layout;
use crate::run;
use crate::say;
use crate::stop::Stop;

/// The packages whose programs run in the system, each with one program of its name.
pub(crate) const PACKAGES: [&str; 5] =
    ["waybill-orders", "waybill-inventory", "waybill-payments", "outbox-relay", "waybillctl"];

/// Names a folder of programs that were built before: `up` runs those, and builds none.
const GIVEN_VARIABLE: &str = "WAYBILL_BIN_DIR";

/// Builds all programs that [`dir_to_run`] is to hold; the first time takes minutes, for librdkafka and TLS are compiled.
pub(crate) fn build(layout: &Layout, release: bool, stop: &Stop) -> Result<()> {
    if let Some(given) = given() {
        say::progress(&format!("running the programs of {}: nothing is built", given.display()));
        return Ok(());
    }
    say::progress(
        "building orders, inventory, payments, outbox-relay and waybillctl (the first time takes minutes) ...",
    );
    let mut cargo = cargo_build(layout);
    if release {
        cargo.arg("--release");
    }
    run::tool(&mut cargo, stop).context("could not build the programs")
}

/// Builds all programs as some tests want them: with the bugs and the crashes that a test can switch on.
pub(crate) fn build_for_tests(layout: &Layout, stop: &Stop) -> Result<()> {
    say::progress("building the programs for tests (the first time takes minutes) ...");
    let mut cargo = cargo_build(layout);
    cargo.args([
        "--package",
        "waybill-runtime",
        "--features",
        "waybill-runtime/failpoints,waybill-runtime/planted",
    ]);
    run::tool(&mut cargo, stop).context("could not build the programs for tests")
}

fn cargo_build(layout: &Layout) -> Command {
    let mut cargo = cargo(layout);
    cargo.args(["build", "--bins"]);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    cargo
}

/// A cargo command in this checkout.
pub(crate) fn cargo(layout: &Layout) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&layout.root);
    command
}

/// Where a program lies once it is built.
pub(crate) fn path(layout: &Layout, binary: &str, release: bool) -> PathBuf {
    dir(layout, release).join(binary)
}

/// The folder of the programs that `up` runs.
pub(crate) fn dir_to_run(layout: &Layout, release: bool) -> PathBuf {
    given().unwrap_or_else(|| dir(layout, release))
}

fn given() -> Option<PathBuf> {
    std::env::var_os(GIVEN_VARIABLE).filter(|given| !given.is_empty()).map(PathBuf::from)
}

/// The folder of the built programs.
pub(crate) fn dir(layout: &Layout, release: bool) -> PathBuf {
    layout.build.join(if release { "release" } else { "debug" })
}

/// Copies the programs that were just built for tests to [`dir_apart`].
///
/// Cargo has one place for a program, whatever it was built with: a build beside the tests would put one there that
/// knows neither planted bugs nor points to crash at.
pub(crate) fn set_apart(layout: &Layout) -> Result<()> {
    let apart = dir_apart(layout);
    fs::create_dir_all(&apart).with_context(|| format!("could not make the folder {}", apart.display()))?;
    for program in PACKAGES {
        let (from, to) = (path(layout, program, false), apart.join(program));
        // Never written into in place: an earlier run's process may still be ending.
        let beside = to.with_extension("new");
        fs::copy(&from, &beside)
            .and_then(|_| fs::rename(&beside, &to))
            .with_context(|| format!("could not copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// The folder of the programs that tests start.
pub(crate) fn dir_apart(layout: &Layout) -> PathBuf {
    dir(layout, false).join("for-tests")
}
