//! Running a tool to its end (cargo, Maven, apt-get ...), stopped with its children when the user asks to.
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::launch::cargo_variables;
use crate::process::ProcessId;
use crate::stop::Stop;

/// How often a wait for a tool looks at it, in milliseconds.
const POLL_INTERVAL_MS: u64 = 20;
/// How long a tool may take to end after SIGTERM before SIGKILL, in milliseconds: cargo and Maven end at once.
const TOOL_STOP_TIMEOUT_MS: u64 = 3_000;
/// How many last lines of a failed tool's output are shown.
const TAIL_LINES_MAX: usize = 20;

/// Runs a tool with this command's own output; fails when it fails.
pub(crate) fn tool(command: &mut Command, stop: &Stop) -> Result<()> {
    let name = name_of(command);
    let status = status(command, stop)?;
    if !status.success() {
        bail!("`{name}` failed ({status}): its own words are above");
    }
    Ok(())
}

/// Runs a tool with this command's own output and returns how it ended.
pub(crate) fn status(command: &mut Command, stop: &Stop) -> Result<ExitStatus> {
    let name = name_of(command);
    let told: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for variable in cargo_variables().into_iter().filter(|variable| !told.contains(variable)) {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).process_group(0);
    let child = command.spawn().with_context(|| format!("could not start `{name}`"))?;
    wait(child, &name, stop)
}

/// Runs a tool with its output in a file; the error shows the file's last lines.
pub(crate) fn logged(command: &mut Command, log: &Path, stop: &Stop) -> Result<()> {
    let name = name_of(command);
    let output = File::create(log).with_context(|| format!("could not make the log {}", log.display()))?;
    let errors = output.try_clone().context("could not share the log between stdout and stderr")?;
    let status = status(command.stdout(output).stderr(errors), stop)?;
    if !status.success() {
        bail!("`{name}` failed ({status}); {} ends with:\n{}", log.display(), tail(log));
    }
    Ok(())
}

/// The last lines of a log, for an error's text.
pub(crate) fn tail(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n")
}

fn wait(mut child: Child, name: &str, stop: &Stop) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("could not wait for `{name}`"))? {
            return Ok(status);
        }
        if let Err(stopped) = stop.pause(Duration::from_millis(POLL_INTERVAL_MS)) {
            end(&mut child);
            return Err(stopped);
        }
    }
}

/// Ends a tool and its children, kindly first.
fn end(child: &mut Child) {
    if let Some(id) = ProcessId::of(child.id()) {
        id.signal_group(Signal::SIGTERM);
        if !id.wait_gone(Duration::from_millis(TOOL_STOP_TIMEOUT_MS)) {
            id.signal_group(Signal::SIGKILL);
        }
    }
    // Reaps it; it has ended or can not survive SIGKILL.
    let _ = child.wait();
}

fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned()
}

/// Whether a program of this name is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_tool_shows_its_last_words() {
        let log = std::env::temp_dir().join(format!("waybill-xtask-run-{}", std::process::id()));
        let error = logged(Command::new("sh").args(["-c", "echo no space; exit 3"]), &log, &Stop::default());
        assert!(error.unwrap_err().to_string().contains("no space"));
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn the_wish_to_stop_ends_a_tool_with_its_children() {
        let stop = Stop::default();
        let asker = stop.clone();
        let marker = std::env::temp_dir().join(format!("waybill-xtask-child-{}", std::process::id()));
        let script = format!("sleep 60 & echo $! > {}; wait", marker.display());
        let seen = marker.clone();
        let thread = std::thread::spawn(move || {
            // Not just there: the shell makes the file before it writes to it.
            while !std::fs::read_to_string(&seen).is_ok_and(|told| told.ends_with('\n')) {
                std::thread::sleep(Duration::from_millis(10));
            }
            asker.ask();
        });
        assert!(status(Command::new("sh").args(["-c", &script]), &stop).is_err());
        thread.join().unwrap();
        let child: u32 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
        let gone = ProcessId::of(child).is_none_or(|id| id.wait_gone(Duration::from_secs(60)));
        assert!(gone, "the tool's own child was ended too");
        std::fs::remove_file(marker).unwrap();
    }
}
