//! A page's blocks of commands as a reader types them, one after the other in one shell.
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::system::{System, kill9};

/// Longest that a page may take, in a debug build on a busy machine.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(600);

/// The blocks of this page of the checkout that are fenced as `sh`.
pub(crate) fn blocks(page: &str) -> Vec<String> {
    let markdown =
        std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let fenced = markdown.split("```sh\n").skip(1);
    fenced.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Runs them about this system and returns what they said; every one has to be well.
pub(crate) fn follow<'a>(system: &System, blocks: impl Iterator<Item = &'a str>) -> String {
    let mut script = "set -euo pipefail\nexec 2>&1\n".to_owned();
    let mut wanted = 0;
    for block in blocks {
        wanted += 1;
        script += &format!("printf '\\n=== block {wanted}\\n'\n{block}\n");
    }
    let tools = shim(system.dir());
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(root()).env("PATH", path);
    let output = bounded(system.of(&mut shell));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "the last block failed ({}):\n{text}", output.status);
    let ran = text.lines().filter(|line| line.starts_with("=== block ")).count();
    assert_eq!(ran, wanted, "a block ended the others:\n{text}");
    text
}

/// Runs it to its end, or kills it: some commands wait for what should come.
fn bounded(command: &mut Command) -> Output {
    let shell = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = u64::from(shell.id());
    let (ended, end) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(FOLLOW_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            kill9(pid);
        }
    });
    let output = shell.wait_with_output().unwrap();
    drop(ended);
    watch.join().unwrap();
    output
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A folder with a `cargo` whose `xtask` is the program of this test: the page's words, and nothing built.
fn shim(dir: &Path) -> PathBuf {
    // Beside: the system's own folder is wiped when it begins afresh.
    let folder = dir.with_extension("shim");
    std::fs::create_dir_all(&folder).unwrap();
    let cargo = folder.join("cargo");
    let xtask = env!("CARGO_BIN_EXE_xtask");
    std::fs::write(
        &cargo,
        format!("#!/bin/sh\n[ \"$1\" = xtask ] && shift && exec '{xtask}' \"$@\"\nexit 1\n"),
    )
    .unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}
