//! What runs now: addresses and processes, kept in one small file that every command reads.
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::process::ProcessId;

/// How far the owner of an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Starting,
    Ready,
    Stopping,
}

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StopSignal {
    /// SIGTERM: drain and end.
    Term,
    /// SIGINT: for Postgres the fast shutdown, which does not wait for clients to leave.
    Int,
}

impl StopSignal {
    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::SIGTERM,
            Self::Int => Signal::SIGINT,
        }
    }
}

/// One process that runs for an instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    #[serde(flatten)]
    pub(crate) process: ProcessId,
    pub(crate) stop_signal: StopSignal,
}

/// The contents of the state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// The command that owns the instance.
    pub(crate) owner: ProcessId,
    /// `host:port` of the broker.
    #[serde(default)]
    pub(crate) kafka: Option<String>,
    /// The server's URL.
    #[serde(default)]
    pub(crate) postgres: Option<String>,
    /// Whether the servers are containers of docker-compose.kafka.yml.
    #[serde(default)]
    pub(crate) docker: bool,
    /// Each service's URL by its name.
    #[serde(default)]
    pub(crate) services: BTreeMap<String, String>,
    /// The operator listener's URL of each service that has one.
    #[serde(default)]
    pub(crate) operators: BTreeMap<String, String>,
    /// The folder of the programs that run.
    #[serde(default)]
    pub(crate) programs: Option<PathBuf>,
    #[serde(default)]
    pub(crate) processes: BTreeMap<String, Running>,
}

impl State {
    /// Reads the state of an instance; `None` when nothing was started or all was stopped cleanly.
    pub(crate) fn read(instance: &Instance) -> Result<Option<Self>> {
        let path = instance.state_file();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("could not read {}", path.display()))?,
        };
        let state = serde_json::from_str(&text);
        state.map(Some).with_context(|| {
            format!("{} is damaged: remove it after `ps` shows nothing of it runs", path.display())
        })
    }

    /// The pid of a process that lives now.
    pub(crate) fn pid(&self, process: &str) -> Option<u32> {
        self.processes
            .get(process)
            .filter(|running| running.process.alive())
            .map(|running| running.process.pid)
    }
}

/// The owner's side of the state file: every change is written before it returns.
#[derive(Clone)]
pub(crate) struct Board {
    shared: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Board {
    /// Starts a state file for the owner (this process).
    pub(crate) fn open(instance: &Instance) -> Result<Self> {
        let owner = ProcessId::own().context("could not read this process's own start time")?;
        let state = State {
            phase: Phase::Starting,
            owner,
            kafka: None,
            postgres: None,
            docker: false,
            services: BTreeMap::new(),
            operators: BTreeMap::new(),
            programs: None,
            processes: BTreeMap::new(),
        };
        write(&instance.state_file(), &state)?;
        Ok(Self { shared: Arc::new(Mutex::new(state)), path: instance.state_file() })
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        write(&self.path, &state)
    }

    pub(crate) fn now(&self) -> State {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes the state file: nothing runs any more.
    pub(crate) fn close(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Replaces the file in one step, so that a reader sees the old or the new state, never half of one.
fn write(path: &Path, state: &State) -> Result<()> {
    let text = serde_json::to_string_pretty(state).context("could not write the state as JSON")?;
    replace_file(path, &text)
}

/// Writes a file beside `path` and renames it into place.
pub(crate) fn replace_file(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("could not write {}", path.display()))
}
