//! `cargo xtask up --detach`: the same `up` in a session of its own, watched until it is ready.
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{EXIT_CODE_INTERRUPTED, UpArgs, running};
use crate::instance::Instance;
use crate::process::ProcessId;
use crate::say;
use crate::state::Phase;
use crate::stop::Stop;

/// How often the background process is looked at, in milliseconds.
const POLL_INTERVAL_MS: u64 = 100;
/// How long it may take to stop after Ctrl-C, in seconds.
const STOP_TIMEOUT_S: u64 = 30;

/// Starts the background process and prints what it says until it is ready or gives up.
pub(super) fn run(args: &UpArgs, instance: &Instance) -> Result<ExitCode> {
    let stop = Stop::on_signals()?;
    fs::create_dir_all(instance.logs())
        .with_context(|| format!("could not make {}", instance.logs().display()))?;
    let log = instance.log("up");
    let mut child = spawn(args, &log)?;
    let mut printed = 0;
    loop {
        let stopped = stop.pause(Duration::from_millis(POLL_INTERVAL_MS)).is_err();
        printed = print_new(&log, printed)?;
        if stopped {
            return interrupt(&mut child, &log, printed);
        }
        if let Some(status) = child.try_wait().context("could not wait for the background process")? {
            print_new(&log, printed)?;
            bail!("the background process gave up ({status}); its words are above and in {}", log.display());
        }
        let ready = running(instance)?
            .is_some_and(|state| state.phase == Phase::Ready && state.owner.pid == child.id());
        if ready {
            print_new(&log, printed)?;
            say::answer(
                "\nRunning in the background. `cargo xtask logs --follow` shows it, `cargo xtask down` stops it.",
            );
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn spawn(args: &UpArgs, log: &Path) -> Result<Child> {
    let output = File::create(log).with_context(|| format!("could not make the log {}", log.display()))?;
    let errors = output.try_clone().context("could not share the log between stdout and stderr")?;
    let own = std::env::current_exe().context("could not find this program's own file")?;
    let mut command = Command::new(own);
    command.arg("up").arg("--background");
    let flags = [
        ("--fresh", args.fresh),
        ("--docker", args.docker),
        ("--release", args.release),
        ("--servers", args.servers),
    ];
    command.args(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag));
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    command.spawn().context("could not start the background process")
}

/// Prints what the log holds past `from`; returns where it ends.
fn print_new(log: &Path, from: usize) -> Result<usize> {
    let bytes = fs::read(log).with_context(|| format!("could not read {}", log.display()))?;
    let new = bytes.get(from..).unwrap_or_default();
    let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for line in String::from_utf8_lossy(&new[..whole]).lines() {
        say::answer(line);
    }
    Ok(from + whole)
}

fn interrupt(child: &mut Child, log: &Path, printed: usize) -> Result<ExitCode> {
    if let Some(process) = ProcessId::of(child.id()) {
        process.signal(Signal::SIGTERM);
        if !process.wait_gone(Duration::from_secs(STOP_TIMEOUT_S)) {
            bail!("it did not stop within {STOP_TIMEOUT_S} s: `cargo xtask down` tries again");
        }
    }
    child.wait().context("could not wait for the background process")?;
    print_new(log, printed)?;
    Ok(ExitCode::from(EXIT_CODE_INTERRUPTED))
}
