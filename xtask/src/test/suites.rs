//! Every test program of the workspace: built by one cargo run, found in its messages.
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::layout::Layout;
use crate::stop::Stop;
use crate::{binaries, run, say};

/// Those that take longest, longest first: begun first, they do not end long after all others. The rest takes seconds.
const LONG: [&str; 6] = [
    "e2e/tests/it",
    "outbox-relay/tests/it",
    "crates/outbox/tests/it",
    "services/orders/tests/it",
    "waybillctl/tests/it",
    "xtask/tests/it",
];

/// libtest: what passed tests print is shown too: how many states a model has, how often rows were published again.
const SHOW_OUTPUT: &str = "--show-output";

/// One program that runs tests and tells libtest's summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suite {
    /// Its source in the checkout: `crates/outbox/tests/it`, `crates/outbox/src`.
    pub(super) name: String,
    program: PathBuf,
    args: Vec<OsString>,
    /// Its package's folder, as cargo has it.
    dir: PathBuf,
}

impl Suite {
    /// As cargo would run it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir).env("CARGO_MANIFEST_DIR", &self.dir);
        command
    }

    #[cfg(test)]
    pub(super) fn of_shell(name: &str, script: &str) -> Self {
        let args = ["-c", script].map(OsString::from).into();
        Self { name: name.to_owned(), program: "sh".into(), args, dir: std::env::temp_dir() }
    }
}

/// Builds every test, and the programs that tests start, in one choice of features: nothing is compiled twice. The
/// suites come in the order in which they are to begin.
pub(super) fn build(layout: &Layout, messages: &Path, stop: &Stop) -> Result<Vec<Suite>> {
    say::progress("building every test and the programs they start (the first time takes minutes) ...");
    let told = File::create(messages).with_context(|| format!("could not make {}", messages.display()))?;
    let mut cargo = binaries::cargo(layout);
    cargo.args(["test", "--workspace", "--tests", "--no-run", "--message-format=json-render-diagnostics"]);
    run::tool(cargo.stdout(told), stop).context("could not build the tests")?;
    let text = std::fs::read_to_string(messages)
        .with_context(|| format!("could not read {}", messages.display()))?;
    let mut suites = text.lines().filter_map(|line| suite(layout, line)).collect::<Vec<_>>();
    ensure!(!suites.is_empty(), "cargo named no test program: its messages are in {}", messages.display());
    suites.push(documentation(layout));
    suites.sort_by_key(|suite| (place(&suite.name), suite.name.clone()));
    Ok(suites)
}

fn place(name: &str) -> usize {
    LONG.iter().position(|long| *long == name).unwrap_or(LONG.len())
}

/// The examples in the documentation, which rustdoc compiles as it runs them.
fn documentation(layout: &Layout) -> Suite {
    let cargo = binaries::cargo(layout);
    let args = ["test", "--workspace", "--doc", "--no-fail-fast"].map(OsString::from).into();
    let (program, dir) = (cargo.get_program().into(), layout.root.clone());
    Suite { name: "documentation".to_owned(), program, args, dir }
}

/// The test program that one message of cargo tells of, if it is of one.
fn suite(layout: &Layout, message: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let program = PathBuf::from(message["executable"].as_str()?);
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let source = Path::new(message["target"]["src_path"].as_str()?);
    let source = source.strip_prefix(&layout.root).unwrap_or(source);
    let folder = match source.file_name()?.to_str()? {
        "main.rs" | "lib.rs" => source.parent()?,
        _ => source,
    };
    let args = vec![OsString::from(SHOW_OUTPUT)];
    Some(Suite { name: folder.display().to_string(), program, args, dir })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(source: &str, test: bool) -> String {
        let root = Layout::find().unwrap().root;
        let at = |path: &str| root.join(path).display().to_string();
        serde_json::json!({
            "reason": "compiler-artifact", "manifest_path": at("e2e/Cargo.toml"), "profile": {"test": test},
            "target": {"src_path": at(source)}, "executable": "/build/deps/it-1234",
        })
        .to_string()
    }

    #[test]
    fn a_test_program_is_named_by_its_source_and_runs_in_its_package() {
        let layout = Layout::find().unwrap();
        let found = suite(&layout, &message("e2e/tests/it/main.rs", true)).unwrap();
        assert_eq!(found.name, LONG[0]);
        assert_eq!(found.command().get_current_dir(), Some(layout.root.join("e2e").as_path()));
        let single = suite(&layout, &message("crates/host/tests/single.rs", true)).unwrap();
        assert_eq!(single.name, "crates/host/tests/single.rs");
        assert_eq!(suite(&layout, &message("e2e/src/main.rs", false)), None, "a program that is no test");
        assert_eq!(suite(&layout, r#"{"reason":"build-finished","success":true}"#), None);
    }

    /// A suite that moves would otherwise begin last, unseen.
    #[test]
    fn every_long_suite_is_there() {
        let root = Layout::find().unwrap().root;
        for name in LONG {
            assert!(root.join(name).join("main.rs").is_file(), "{name}");
        }
    }
}
