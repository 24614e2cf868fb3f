//! `cargo xtask down`: stops the running system, or what a crashed `up` left behind.
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::instance::Instance;
use crate::layout::Layout;
use crate::process::ProcessId;
use crate::servers::{self, KAFKA, POSTGRES};
use crate::state::{Running, State};
use crate::{say, services};

/// How long `up` may take to stop everything itself, in seconds.
const OWNER_STOP_TIMEOUT_S: u64 = 30;
/// How long a process without its owner may take before SIGKILL, in seconds.
const STOP_TIMEOUT_S: u64 = 12;
/// How long a killed process may take to go, in seconds: the kernel needs milliseconds.
const KILL_TIMEOUT_S: u64 = 5;

/// Stops the development system; also the servers of a test run that crashed.
pub(crate) fn run() -> Result<ExitCode> {
    let layout = Layout::find()?;
    let dev = stop(&layout, &layout.dev())?;
    let tests = layout.test_servers();
    let crashed = State::read(&tests)?.is_some_and(|state| !state.owner.alive());
    let tests = crashed && stop(&layout, &tests)?;
    say::answer(if dev || tests { "Stopped." } else { "Nothing was running." });
    Ok(ExitCode::SUCCESS)
}

/// `true` when there was something to stop.
fn stop(layout: &Layout, instance: &Instance) -> Result<bool> {
    let Some(state) = State::read(instance)? else { return Ok(false) };
    if state.owner.signal(Signal::SIGTERM) {
        say::progress(&format!("asking `up` (pid {}) to stop everything ...", state.owner.pid));
        if !state.owner.wait_gone(Duration::from_secs(OWNER_STOP_TIMEOUT_S)) {
            say::progress("it did not within 30 s: killing it and stopping its processes one by one");
            state.owner.signal(Signal::SIGKILL);
            state.owner.wait_gone(Duration::from_secs(KILL_TIMEOUT_S));
        }
    }
    let owned = instance
        .own()?
        .with_context(|| format!("another command has just taken {}", instance.dir().display()))?;
    mend(layout, instance)?;
    drop(owned);
    Ok(true)
}

/// Stops processes whose owner is gone and removes the state file. The caller owns the instance.
pub(crate) fn mend(layout: &Layout, instance: &Instance) -> Result<()> {
    let Some(state) = State::read(instance)? else { return Ok(()) };
    // Services first: they drain against servers that still answer.
    stop_processes(&state, &services::NAMES)?;
    stop_processes(&state, &[KAFKA, POSTGRES])?;
    servers::stop_containers(layout, &state.containers)?;
    let file = instance.state_file();
    std::fs::remove_file(&file).with_context(|| format!("could not remove {}", file.display()))
}

fn stop_processes(state: &State, names: &[&str]) -> Result<()> {
    let left: Vec<(&str, &Running)> = names
        .iter()
        .filter_map(|name| state.processes.get(*name).map(|running| (*name, running)))
        .filter(|(_, running)| running.process.alive())
        .collect();
    for (name, running) in &left {
        say::progress(&format!("stopping {name} (pid {}), left behind by a crash", running.process.pid));
        running.process.signal(running.stop_signal.signal());
    }
    left.into_iter().try_for_each(|(name, running)| end(name, &running.process))
}

fn end(name: &str, process: &ProcessId) -> Result<()> {
    if process.wait_gone(Duration::from_secs(STOP_TIMEOUT_S)) {
        return Ok(());
    }
    process.signal_group(Signal::SIGKILL);
    if !process.wait_gone(Duration::from_secs(KILL_TIMEOUT_S)) {
        bail!(
            "{name} (pid {}) can not be killed: see what holds it with `ps -o pid,stat,wchan {0}`",
            process.pid
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;
    use crate::instance::tests::scratch;
    use crate::state::{Board, StopSignal};

    #[test]
    fn what_a_crash_left_behind_is_stopped_and_strangers_are_not() {
        let instance = scratch("mend");
        let _owned = instance.own().unwrap();
        let mut left = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let board = Board::open(&instance).unwrap();
        let left_id = ProcessId::of(left.id()).unwrap();
        // A pid that was given to another process since: same number, other start time.
        let text = ProcessId::of(stranger.id()).unwrap().json().to_string().replace('@', "@1");
        let reused = ProcessId::of_json(&serde_json::from_str(&text).unwrap()).unwrap();
        let running = |process| Running { process, stop_signal: StopSignal::Term };
        board
            .change(|state| {
                state.processes.insert("orders".to_owned(), running(left_id.clone()));
                state.processes.insert(KAFKA.to_owned(), running(reused));
            })
            .unwrap();

        mend(&Layout::find().unwrap(), &instance).unwrap();

        assert!(!left_id.alive());
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
        assert!(State::read(&instance).unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        left.wait().unwrap();
        std::fs::remove_dir_all(instance.dir()).unwrap();
    }
}
