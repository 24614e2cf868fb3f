//! Keeps processes running: starts them, starts them again when they die, stops them in order. One thread each.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::launch::{Launcher, Program};
use crate::process::ProcessId;
use crate::run::tail;
use crate::state::{Board, Running, StopSignal};
use crate::{logs, say};

/// How often a thread looks whether its process has ended, in milliseconds.
const POLL_INTERVAL_MS: u64 = 20;
/// Looks between two looks at the log's size: about every five seconds.
const LOG_LOOK_POLLS: u64 = 250;
/// The first pause before a dead process is started again, in milliseconds; it doubles with each early death.
const BACKOFF_FIRST_MS: u64 = 300;
/// The longest pause, in milliseconds: short enough to watch.
const BACKOFF_MS_MAX: u64 = 10_000;
/// A process that lived this long has come up: its next death starts at the first pause again, in seconds.
const STEADY_AFTER_S: u64 = 20;
/// Deaths during the start-up after which waiting for it is given up.
pub(crate) const EARLY_DEATHS_MAX: u32 = 5;

/// A process to keep running.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) program: Program,
    pub(crate) log: PathBuf,
    pub(crate) stop_signal: StopSignal,
    /// How long it may take to stop before SIGKILL.
    pub(crate) stop_timeout: Duration,
}

/// All processes of one instance.
pub(crate) struct Supervisor {
    launcher: Launcher,
    board: Board,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One process's place: who is in it now, and the wish to empty it.
struct Slot {
    spec: Spec,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    current: Option<ProcessId>,
    stopping: bool,
    deaths: u32,
    done: bool,
}

impl Supervisor {
    pub(crate) fn new(launcher: Launcher, board: Board) -> Self {
        Self { launcher, board, slots: Mutex::default(), threads: Mutex::default() }
    }

    /// Starts a process and keeps it running until it is stopped.
    pub(crate) fn start(&self, spec: Spec) -> Result<()> {
        let name = spec.name.clone();
        let slot = Arc::new(Slot { spec, inner: Mutex::default(), changed: Condvar::new() });
        let (launcher, board, own) = (self.launcher.clone(), self.board.clone(), Arc::clone(&slot));
        let thread =
            std::thread::Builder::new().name(name.clone()).spawn(move || own.keep(&launcher, &board));
        let thread = thread.with_context(|| format!("could not start the thread that watches {name}"))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(name, slot);
        Ok(())
    }

    /// Fails when a process died so often while it was waited for that waiting is in vain.
    pub(crate) fn check_early_deaths(&self, name: &str) -> Result<()> {
        let Some(slot) = self.slot(name) else { return Ok(()) };
        let deaths = slot.lock().deaths;
        if deaths >= EARLY_DEATHS_MAX {
            let log = &slot.spec.log;
            bail!("{name} died {deaths} times while starting; {} ends with:\n{}", log.display(), tail(log));
        }
        Ok(())
    }

    /// Stops the named processes side by side and waits for their end; `at_once` says when to stop being kind.
    pub(crate) fn stop(&self, names: &[&str], at_once: impl Fn() -> bool) {
        let slots: Vec<Arc<Slot>> = names.iter().filter_map(|name| self.slot(name)).collect();
        for slot in &slots {
            slot.ask_to_stop();
        }
        let asked = Instant::now();
        for slot in &slots {
            slot.wait_done(asked, &at_once);
        }
    }

    /// Waits for the threads; every process must have been stopped.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }

    fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Slot {
    /// The thread of this process: start, wait, start again, until the wish to stop.
    fn keep(&self, launcher: &Launcher, board: &Board) {
        let mut early_deaths = 0;
        while !self.lock().stopping {
            let born = Instant::now();
            let why = match self.live_once(launcher, board) {
                Ok(Some(status)) => format!("ended ({status})"),
                Ok(None) => break,
                Err(error) => format!("could not be started: {error:#}"),
            };
            early_deaths =
                if born.elapsed() > Duration::from_secs(STEADY_AFTER_S) { 0 } else { early_deaths + 1 };
            let pause = backoff(early_deaths);
            self.lock().deaths = early_deaths;
            say::prefixed("up", &format!("{} {why}; starting it again in {pause:?}", self.spec.name));
            self.pause(pause);
        }
        self.lock().done = true;
        self.changed.notify_all();
    }

    /// One life. `None` when it ended because it was asked to.
    fn live_once(&self, launcher: &Launcher, board: &Board) -> Result<Option<ExitStatus>> {
        let (mut child, pid) = {
            // Under the lock, so that a wish to stop comes before the start or finds the process.
            let mut inner = self.lock();
            if inner.stopping {
                return Ok(None);
            }
            logs::bound(&self.spec.log)?;
            let child = launcher.start(&self.spec.program, self.spec.stop_signal, &self.spec.log)?;
            let pid = child.id();
            inner.current = ProcessId::of(pid);
            (child, pid)
        };
        self.record(board, pid);
        let status = self.wait(&mut child);
        board
            .change(|state| drop(state.processes.remove(&self.spec.name)))
            .unwrap_or_else(|error| say::error(&error));
        let status = status?;
        Ok(if self.lock().stopping { None } else { Some(status) })
    }

    fn record(&self, board: &Board, pid: u32) {
        let Some(process) = ProcessId::of(pid) else { return };
        let running = Running { process, stop_signal: self.spec.stop_signal };
        let written = board.change(|state| drop(state.processes.insert(self.spec.name.clone(), running)));
        written.unwrap_or_else(|error| say::error(&error));
    }

    /// Waits for the end and reaps under the lock, so that nobody signals a pid that is no longer ours.
    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let mut inner = self.lock();
        for poll in 0_u64.. {
            if let Some(status) = child.try_wait().context("could not wait for a process")? {
                inner.current = None;
                return Ok(status);
            }
            let waited = self.changed.wait_timeout(inner, Duration::from_millis(POLL_INTERVAL_MS));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            if poll % LOG_LOOK_POLLS == 0 {
                logs::bound(&self.spec.log).unwrap_or_else(|error| say::error(&error));
            }
        }
        bail!("waited longer than time lasts")
    }

    fn pause(&self, time: Duration) {
        let inner = self.lock();
        drop(self.changed.wait_timeout_while(inner, time, |inner| !inner.stopping));
    }

    fn ask_to_stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        if let Some(process) = &inner.current {
            process.signal(self.spec.stop_signal.signal());
        }
        self.changed.notify_all();
    }

    /// Waits for the end; past the time limit, or when told to hurry, kills the process and its group.
    fn wait_done(&self, asked: Instant, at_once: &impl Fn() -> bool) {
        let mut killed = false;
        let mut inner = self.lock();
        while !inner.done {
            let late = asked.elapsed() >= self.spec.stop_timeout || at_once();
            if let (true, false, Some(process)) = (late, killed, &inner.current) {
                say::prefixed("up", &format!("{} did not stop in time: killing it", self.spec.name));
                process.signal_group(Signal::SIGKILL);
                killed = true;
            }
            let waited = self.changed.wait_timeout(inner, Duration::from_millis(POLL_INTERVAL_MS));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause after so many early deaths in a row.
fn backoff(early_deaths: u32) -> Duration {
    let doubled = BACKOFF_FIRST_MS.saturating_mul(1 << early_deaths.saturating_sub(1).min(16));
    Duration::from_millis(doubled.min(BACKOFF_MS_MAX))
}

/// A spec for a program that runs in `cwd` with this instance's log of the same name.
pub(crate) fn spec(name: &str, program: Program, log: &Path, stop_timeout: Duration) -> Spec {
    Spec {
        name: name.to_owned(),
        program,
        log: log.to_path_buf(),
        stop_signal: StopSignal::Term,
        stop_timeout,
    }
}

#[cfg(test)]
mod tests;
