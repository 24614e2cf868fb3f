//! Arrows between crates, read from `cargo metadata`.
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::binaries;
use crate::layout::Layout;

const MECHANISM: [&str; 8] =
    ["host", "saga", "outbox", "messaging", "telemetry", "runtime", "http", "events"];

/// Each member's folder with the members of `crates/` that it may use. A service may use all of the mechanism.
const ARROWS: [(&str, &[&str]); 18] = [
    ("services/orders", &MECHANISM),
    ("services/inventory", &MECHANISM),
    ("services/payments", &MECHANISM),
    ("outbox-relay", &["messaging", "runtime", "telemetry", "http"]),
    ("crates/events", &["messaging"]),
    ("crates/host", &["http", "saga", "outbox", "explain", "messaging", "telemetry", "runtime"]),
    ("crates/saga", &["outbox", "messaging", "telemetry", "runtime"]),
    ("crates/outbox", &["messaging", "telemetry", "runtime"]),
    ("crates/explain", &["messaging"]),
    ("crates/messaging", &["telemetry", "runtime"]),
    ("crates/http", &["telemetry", "runtime"]),
    ("crates/telemetry", &[]),
    ("crates/runtime", &[]),
    ("crates/testkit", &[]),
    ("waybillctl", &["explain", "messaging", "events", "runtime", "telemetry"]),
    ("e2e", &["testkit", "events"]),
    ("bench", &["testkit", "outbox", "messaging", "runtime"]),
    ("xtask", &[]),
];

/// What tests may use beyond that: the test kit; the relay's tests the real outbox; black-box tests the runtime, for its
/// feature that plants bugs in the programs they start.
const ARROWS_OF_TESTS: [(&str, &[&str]); 2] = [("outbox-relay", &["outbox"]), ("e2e", &["runtime"])];

/// A member of the workspace with its dependencies on other members.
#[derive(Debug)]
pub(super) struct Package {
    /// Its folder, relative to the root.
    pub(super) folder: String,
    /// Folder of the member it depends on, and whether only its tests do.
    pub(super) uses: Vec<(String, bool)>,
}

/// What breaks an arrow, one sentence each.
pub(super) fn violations(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(violations_of).collect()
}

fn violations_of(package: &Package) -> Vec<String> {
    let folder = package.folder.as_str();
    let Some(allowed) = arrows(&ARROWS, folder) else {
        return vec![format!(
            "{folder}: a new member: say in xtask/src/lint/arrows/crates.rs what it may depend on"
        )];
    };
    let in_tests = arrows(&ARROWS_OF_TESTS, folder).unwrap_or_default();
    let mut found = Vec::new();
    for (used, test_only) in &package.uses {
        let name = used.strip_prefix("crates/");
        let ok = match name {
            // Nobody uses a service or a program.
            None => false,
            Some("testkit") => *test_only || matches!(folder, "e2e" | "bench"),
            Some(name) => allowed.contains(&name) || (*test_only && in_tests.contains(&name)),
        };
        if !ok {
            let kind = if *test_only { " in its tests" } else { "" };
            found.push(format!("{folder} -> {used}{kind}: this arrow is not in the architecture"));
        }
    }
    found
}

fn arrows(table: &[(&str, &'static [&'static str])], folder: &str) -> Option<&'static [&'static str]> {
    table.iter().find(|(member, _)| *member == folder).map(|(_, allowed)| *allowed)
}

/// Asks cargo for the members; works offline.
pub(super) fn packages(layout: &Layout) -> Result<Vec<Package>> {
    let mut cargo = binaries::cargo(layout);
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = cargo.output().context("could not run cargo metadata")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata's answer is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages.iter().map(|package| read(layout, package)).collect()
}

fn read(layout: &Layout, package: &Value) -> Result<Package> {
    let manifest = package["manifest_path"].as_str().context("a package has a manifest")?;
    let folder = Path::new(manifest).parent().context("a manifest lies in a folder")?;
    let dependencies = package["dependencies"].as_array().context("a package tells its dependencies")?;
    let uses = dependencies.iter().filter_map(|dependency| {
        // Only dependencies on members have a path.
        let path = dependency["path"].as_str()?;
        Some(relative(layout, Path::new(path)).map(|folder| (folder, dependency["kind"] == "dev")))
    });
    Ok(Package { folder: relative(layout, folder)?, uses: uses.collect::<Result<_>>()? })
}

fn relative(layout: &Layout, folder: &Path) -> Result<String> {
    let inside = folder.strip_prefix(&layout.root);
    let inside = inside.with_context(|| format!("{} lies outside the checkout", folder.display()))?;
    Ok(inside.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(folder: &str, uses: &str, test_only: bool) -> usize {
        violations(&[Package { folder: folder.to_owned(), uses: vec![(uses.to_owned(), test_only)] }]).len()
    }

    #[test]
    fn the_architecture_s_arrows_pass() {
        assert_eq!(found("services/orders", "crates/saga", false), 0);
        assert_eq!(found("crates/saga", "crates/outbox", false), 0);
        assert_eq!(found("crates/events", "crates/messaging", false), 0);
        assert_eq!(found("outbox-relay", "crates/outbox", true), 0);
        assert_eq!(found("e2e", "crates/testkit", false), 0);
    }

    #[test]
    fn planted_arrows_are_found() {
        assert_eq!(found("services/orders", "services/inventory", false), 1, "service -> service");
        assert_eq!(found("crates/saga", "services/orders", false), 1, "crate -> service");
        assert_eq!(found("crates/messaging", "crates/outbox", false), 1, "against the arrow");
        assert_eq!(found("outbox-relay", "crates/outbox", false), 1, "the relay reads tables, not the crate");
        assert_eq!(found("services/orders", "crates/testkit", false), 1, "the test kit in a program");
        assert_eq!(found("services/orders", "crates/testkit", true), 0);
        assert_eq!(found("e2e", "services/orders", true), 1, "black box");
        assert_eq!(found("crates/novelty", "crates/runtime", false), 1, "an unknown member");
    }
}
