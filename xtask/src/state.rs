//! What runs now: addresses and processes, kept in one small file that every command reads.
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Map, Value, from_value, json};

use crate::arguments::Choice;
use crate::instance::Instance;
use crate::process::ProcessId;

/// How far the owner of an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    Stopping,
}

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// SIGTERM: drain and end.
    Term,
    /// SIGINT: for Postgres the fast shutdown, which does not wait for clients to leave.
    Int,
}

impl Choice for Phase {
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        ("starting", Self::Starting, "not everything is ready yet"),
        ("ready", Self::Ready, "everything was ready once"),
        ("stopping", Self::Stopping, "asked to stop"),
    ];
}

impl Choice for StopSignal {
    const WORDS: &'static [(&'static str, Self, &'static str)] =
        &[("term", Self::Term, "SIGTERM"), ("int", Self::Int, "SIGINT")];
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
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) process: ProcessId,
    pub(crate) stop_signal: StopSignal,
}

impl Running {
    fn json(&self) -> Value {
        let mut json = self.process.json();
        json["stop_signal"] = self.stop_signal.word().into();
        json
    }

    fn of_json(value: &Value) -> Option<Self> {
        let stop_signal = StopSignal::of_word(value["stop_signal"].as_str()?)?;
        Some(Self { process: ProcessId::of_json(value)?, stop_signal })
    }
}

/// The contents of the state file.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// The command that owns the instance.
    pub(crate) owner: ProcessId,
    /// `host:port` of the broker.
    pub(crate) kafka: Option<String>,
    /// The server's URL.
    pub(crate) postgres: Option<String>,
    /// The containers of docker-compose.kafka.yml that were started with it.
    pub(crate) containers: Vec<String>,
    /// Each service's URL by its name.
    pub(crate) services: BTreeMap<String, String>,
    /// The operator listener's URL of each service that has one.
    pub(crate) operators: BTreeMap<String, String>,
    /// The folder of the programs that run.
    pub(crate) programs: Option<PathBuf>,
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
        let state = serde_json::from_str(&text).ok().as_ref().and_then(Self::of_json);
        state.map(Some).with_context(|| {
            format!("{} is damaged: remove it after `ps` shows nothing of it runs", path.display())
        })
    }

    fn json(&self) -> Value {
        let processes: Map<String, Value> =
            self.processes.iter().map(|(name, running)| (name.clone(), running.json())).collect();
        json!({
            "phase": self.phase.word(),
            "owner": self.owner.json(),
            "kafka": self.kafka,
            "postgres": self.postgres,
            "containers": self.containers,
            "services": self.services,
            "operators": self.operators,
            "programs": self.programs.as_ref().map(|folder| folder.to_string_lossy()),
            "processes": processes,
        })
    }

    /// What [`Self::json`] told, or an older one of ours; `None` when this is something else.
    fn of_json(value: &Value) -> Option<Self> {
        let processes = value["processes"].as_object()?.iter();
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let urls = |name: &str| from_value(value[name].clone()).unwrap_or_default();
        Some(Self {
            phase: Phase::of_word(value["phase"].as_str()?)?,
            owner: ProcessId::of_json(&value["owner"])?,
            kafka: text("kafka"),
            postgres: text("postgres"),
            containers: from_value(value["containers"].clone()).unwrap_or_default(),
            services: urls("services"),
            operators: urls("operators"),
            programs: text("programs").map(PathBuf::from),
            processes: processes
                .map(|(name, running)| Some((name.clone(), Running::of_json(running)?)))
                .collect::<Option<_>>()?,
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
            containers: Vec::new(),
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
    replace_file(path, &format!("{:#}", state.json()))
}

/// Writes a file beside `path` and renames it into place.
pub(crate) fn replace_file(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::scratch;

    #[test]
    fn what_is_written_is_read_again() {
        let instance = scratch("state");
        let _owned = instance.own().unwrap();
        let board = Board::open(&instance).unwrap();
        let own = ProcessId::own().unwrap();
        board
            .change(|state| {
                (state.phase, state.containers) = (Phase::Ready, vec!["kafka".to_owned()]);
                state.postgres = Some("postgres://h/d".to_owned());
                state.services.insert("orders".to_owned(), "http://h:1".to_owned());
                state.operators.insert("orders".to_owned(), "http://h:2".to_owned());
                state.programs = Some(PathBuf::from("target/debug"));
                let running = Running { process: own.clone(), stop_signal: StopSignal::Int };
                state.processes.insert("postgres".to_owned(), running);
            })
            .unwrap();
        let read = State::read(&instance).unwrap().unwrap();
        assert_eq!(read.json(), board.now().json());
        assert_eq!((read.phase, read.containers.len(), read.kafka), (Phase::Ready, 1, None));
        assert_eq!(read.processes["postgres"].stop_signal, StopSignal::Int);
        assert_eq!(read.owner, own);

        fs::write(instance.state_file(), "{\"phase\": \"gone\"}").unwrap();
        assert!(State::read(&instance).unwrap_err().to_string().contains("damaged"));
        fs::remove_dir_all(instance.dir()).unwrap();
    }
}
