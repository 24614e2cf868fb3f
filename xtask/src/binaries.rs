//! Building Waybill's programs, and where they lie.
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::layout::Layout;
use crate::run;
use crate::say;
use crate::stop::Stop;

/// The packages whose programs run in the system.
pub(crate) const PACKAGES: [&str; 5] =
    ["waybill-orders", "waybill-inventory", "waybill-payments", "outbox-relay", "waybillctl"];

/// Builds all programs; the first time takes minutes, for librdkafka and TLS are compiled.
pub(crate) fn build(layout: &Layout, release: bool, stop: &Stop) -> Result<()> {
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

/// Builds all programs together with every test: one choice of features for both, so that nothing is compiled twice.
pub(crate) fn build_with_tests(layout: &Layout, stop: &Stop) -> Result<()> {
    say::progress("building every program and test (the first time takes minutes) ...");
    let mut cargo = cargo(layout);
    cargo.args(["build", "--workspace", "--lib", "--bins", "--tests"]);
    run::tool(&mut cargo, stop).context("could not build the programs and tests")
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

/// The folder of the built programs.
pub(crate) fn dir(layout: &Layout, release: bool) -> PathBuf {
    layout.build.join(if release { "release" } else { "debug" })
}
