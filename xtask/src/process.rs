//! A process by pid and start time, so that a pid that was given to somebody else is never signalled.
use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How often a wait looks whether a process has ended, in milliseconds: 20 looks a second cost nothing.
const POLL_INTERVAL_MS: u64 = 50;

/// The identity of a process on this machine since its boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Boot and start time as the kernel tells them; equal for the same process only.
    started: String,
}

impl ProcessId {
    /// The identity of the living process `pid`; `None` when there is none (a zombie is none).
    pub(crate) fn of(pid: u32) -> Option<Self> {
        started(pid).map(|started| Self { pid, started })
    }

    /// As [`Self::of_json`] reads it.
    pub(crate) fn json(&self) -> Value {
        json!({"pid": self.pid, "started": self.started})
    }

    /// What [`Self::json`] told; `None` when this is something else.
    pub(crate) fn of_json(value: &Value) -> Option<Self> {
        let pid = u32::try_from(value["pid"].as_u64()?).ok()?;
        Some(Self { pid, started: value["started"].as_str()?.to_owned() })
    }

    pub(crate) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether this very process still lives.
    pub(crate) fn alive(&self) -> bool {
        started(self.pid).is_some_and(|now| now == self.started)
    }

    /// Sends a signal to the process alone. `false` when it no longer lives.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.alive() && kill(self.raw(), signal).is_ok()
    }

    /// Sends a signal to the process and the group it leads. `false` when it no longer lives.
    pub(crate) fn signal_group(&self, signal: Signal) -> bool {
        self.alive()
            && match killpg(self.raw(), signal) {
                Err(Errno::ESRCH) => kill(self.raw(), signal).is_ok(),
                sent => sent.is_ok(),
            }
    }

    /// Waits until the process ended, at most `time`; `true` when it did.
    pub(crate) fn wait_gone(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while self.alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(POLL_INTERVAL_MS));
        }
        true
    }

    fn raw(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid).expect("a pid fits in i32"))
    }
}

#[cfg(target_os = "linux")]
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the state follows it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (state, ticks) = (*fields.first()?, *fields.get(19)?);
    if matches!(state, "Z" | "X") {
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{}@{ticks}", boot.trim()))
}

#[cfg(not(target_os = "linux"))]
fn started(pid: u32) -> Option<String> {
    let told = std::process::Command::new("ps")
        .args(["-o", "stat=,lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let line = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    let (state, started) = line.split_once(' ')?;
    (!state.starts_with('Z')).then(|| started.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_living_process_is_known_and_a_killed_one_is_not() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.alive());
        assert!(id.signal(Signal::SIGKILL));
        assert!(id.wait_gone(Duration::from_secs(60)), "a zombie counts as gone");
        child.wait().unwrap();
        assert!(!id.alive());
        assert!(!id.signal(Signal::SIGKILL));
    }

    #[test]
    fn a_reused_pid_is_not_signalled() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut id = ProcessId::of(child.id()).unwrap();
        id.started.push('0');
        assert!(!id.alive());
        assert!(!id.signal(Signal::SIGKILL), "another start time is another process");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
