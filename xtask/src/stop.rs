//! The wish to stop: set by Ctrl-C, SIGTERM or a closed terminal, seen by every wait.
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Shared by all threads of a command; a clone is the same wish.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    asked: Mutex<u32>,
    changed: Condvar,
}

/// The error of whatever was interrupted by the wish to stop.
#[derive(Debug)]
pub(crate) struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped on request")
    }
}

impl std::error::Error for Stopped {}

impl Stop {
    /// A wish that SIGINT, SIGTERM and SIGHUP set. Each further signal counts: the second means "at once".
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .context("could not listen for SIGINT, SIGTERM and SIGHUP")?;
        let setter = stop.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for _ in signals.forever() {
                    setter.ask();
                }
            })
            .context("could not start the thread that waits for signals")?;
        Ok(stop)
    }

    /// Asks everything to stop.
    pub(crate) fn ask(&self) {
        *self.times() += 1;
        self.shared.changed.notify_all();
    }

    pub(crate) fn asked(&self) -> bool {
        *self.times() > 0
    }

    /// Whether the user insisted with a second signal.
    pub(crate) fn insisted(&self) -> bool {
        *self.times() > 1
    }

    /// An error once somebody asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.asked() {
            bail!(Stopped);
        }
        Ok(())
    }

    /// Waits for `time` or the wish to stop, which is an error.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        let asked = self.times();
        let waited = self.shared.changed.wait_timeout_while(asked, time, |asked| *asked == 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.check()
    }

    fn times(&self) -> MutexGuard<'_, u32> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
