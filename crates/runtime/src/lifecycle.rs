//! A process's life: signals ask it to stop, its tasks are supervised, and its end is bounded.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Tells everybody that the process is to stop. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Requested by SIGTERM or SIGINT. A second signal does not hurry it: the bound of [`Tasks`] does.
    ///
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn on_signals() -> Self {
        let shutdown = Self::default();
        let requested = shutdown.clone();
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::spawn(async move {
                    let name = tokio::select! {
                        _ = terminate.recv() => "SIGTERM",
                        _ = interrupt.recv() => "SIGINT",
                    };
                    tracing::info!(signal = name, "stopping");
                    requested.request();
                });
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "signals can not be heard: this process can only be killed");
            }
        }
        shutdown
    }

    /// Requested by [`Shutdown::request`] only: for tests and embedded use.
    #[must_use]
    pub fn manual() -> Self {
        Self::default()
    }

    /// Waits until it is requested; safe to be dropped at any time.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Whether it is requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Requests it. Harmless to repeat.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Sleeps, but not past the request; `false` when it was requested.
    pub async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.requested() => false,
            () = tokio::time::sleep(time) => !self.is_requested(),
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// Asked to stop, and everything drained: exit code 0.
    Requested,
    /// A task ended, failed or panicked on its own: exit code 1, so that the platform starts the process again.
    TaskEnded,
    /// Something did not drain in time: exit code 1.
    TimedOut,
}

impl ExitReason {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> i32 {
        i32::from(self != Self::Requested)
    }
}

/// The long-running tasks of a process. When one ends on its own, all are asked to stop: half a service is none.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: Vec<(Id, &'static str)>,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that runs until the shutdown is requested.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.push((handle.id(), name));
    }

    /// Runs until the shutdown is requested or a task ends on its own, then waits at most `timeout` for the rest.
    pub async fn run_until_shutdown(mut self, shutdown: Shutdown, timeout: Duration) -> ExitReason {
        let mut reason = ExitReason::Requested;
        tokio::select! {
            () = shutdown.requested() => {}
            Some(ended) = self.set.join_next_with_id() => {
                // A task that saw the request first ends before this select does.
                if !shutdown.is_requested() {
                    let (id, why) = match ended {
                        Ok((id, ())) => (id, "ended".to_owned()),
                        Err(error) => (error.id(), error.to_string()),
                    };
                    tracing::error!(task = self.name(id), why, "a task ended on its own: stopping the process");
                    reason = ExitReason::TaskEnded;
                }
                shutdown.request();
            }
        }
        let drained = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                if let Err(error) = ended {
                    tracing::error!(task = self.name(error.id()), %error, "a task failed while stopping");
                }
            }
        };
        if tokio::time::timeout(timeout, drained).await.is_err() {
            tracing::error!(
                timeout_ms = timeout.as_millis(),
                left = self.set.len(),
                "not everything stopped in time"
            );
            return ExitReason::TimedOut;
        }
        reason
    }

    fn name(&self, id: Id) -> &'static str {
        self.names.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_request_drains_every_task() {
        let shutdown = Shutdown::manual();
        let mut tasks = Tasks::new();
        for name in ["one", "two"] {
            let shutdown = shutdown.clone();
            tasks.spawn(name, async move { shutdown.requested().await });
        }
        shutdown.request();
        assert_eq!(tasks.run_until_shutdown(shutdown, LIMIT).await, ExitReason::Requested);
    }

    #[tokio::test]
    async fn a_task_that_panics_stops_the_others() {
        let shutdown = Shutdown::manual();
        let mut tasks = Tasks::new();
        let other = shutdown.clone();
        tasks.spawn("waits", async move { other.requested().await });
        tasks.spawn("panics", async { panic!("as planned") });
        assert_eq!(tasks.run_until_shutdown(shutdown.clone(), LIMIT).await, ExitReason::TaskEnded);
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_left_behind() {
        let shutdown = Shutdown::manual();
        let mut tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        shutdown.request();
        assert_eq!(tasks.run_until_shutdown(shutdown, LIMIT).await, ExitReason::TimedOut);
    }
}
