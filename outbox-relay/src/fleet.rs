//! The workers of a process, one per database: started and ended as the configuration's list changes, the others untouched.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{Id, JoinError, JoinSet};
use waybill_runtime::lifecycle::Shutdown;

use crate::config::{Config, Database};
use crate::metrics::Metrics;
use crate::reload::Reload;
use crate::status::Status;
use crate::worker::{Sharing, Worker};

/// Names and states of the databases served, for `/ready`.
#[derive(Clone, Default)]
pub struct Roster(Arc<Mutex<BTreeMap<String, Arc<Status>>>>);

impl Roster {
    /// Each database, and why it is not published.
    #[must_use]
    pub fn ready(&self) -> Vec<(String, Result<(), String>)> {
        self.lock().iter().map(|(name, status)| (name.clone(), status.ready())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Status>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker at work.
struct Serving {
    database: Database,
    shutdown: Shutdown,
    task: Id,
}

/// All workers.
pub struct Fleet {
    config: Config,
    roster: Roster,
    sharing: Sharing,
    serving: BTreeMap<String, Serving>,
    /// Asked to end, by task: the database's name.
    leaving: HashMap<Id, String>,
    /// Changed databases whose old worker is still leaving.
    next: BTreeMap<String, Database>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts a worker for each of the configuration's databases. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(config: Config, roster: Roster) -> Self {
        let databases = config.databases.clone();
        let sharing = Sharing::new(config.tuning.lease);
        let mut fleet = Self {
            config,
            roster,
            sharing,
            serving: BTreeMap::new(),
            leaving: HashMap::new(),
            next: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        fleet.serve(databases);
        fleet
    }

    /// Runs until the shutdown is requested and every worker has stored its position and given back its lease. Returns
    /// early when a worker ends unasked, which it never should: the process then ends and is started again.
    pub async fn run(mut self, mut reload: Reload, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                Some(ended) = self.tasks.join_next_with_id() => {
                    if !self.has_left(ended) {
                        break;
                    }
                }
                databases = reload.databases() => self.serve(databases),
            }
        }
        for serving in self.serving.values() {
            serving.shutdown.request();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// From now on these databases, no others.
    fn serve(&mut self, databases: Vec<Database>) {
        let listed: BTreeMap<String, Database> =
            databases.into_iter().map(|database| (database.name.clone(), database)).collect();
        // What waited for its turn is decided anew.
        self.next.clear();
        let gone: Vec<String> = self
            .serving
            .iter()
            .filter(|(name, serving)| listed.get(*name) != Some(&serving.database))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.end(&name);
        }
        for (name, database) in listed {
            if self.leaving.values().any(|leaving| *leaving == name) {
                self.next.insert(name, database);
            } else if !self.serving.contains_key(&name) {
                self.begin(database);
            }
        }
    }

    fn begin(&mut self, database: Database) {
        let shutdown = Shutdown::manual();
        let worker = Worker::new(&self.config, &database, shutdown.clone(), self.sharing.clone());
        tracing::info!(%database, "this database is served");
        self.roster.lock().insert(database.name.clone(), worker.status());
        let task = self.tasks.spawn(worker.run()).id();
        self.serving.insert(database.name.clone(), Serving { database, shutdown, task });
    }

    /// Its worker stops reading, waits for what is on its way, stores the position and gives the lease back.
    fn end(&mut self, name: &str) {
        let Some(serving) = self.serving.remove(name) else { return };
        tracing::info!(database = name, "this database is listed no more, or otherwise: its worker ends");
        self.roster.lock().remove(name);
        self.leaving.insert(serving.task, name.to_owned());
        serving.shutdown.request();
    }

    /// A worker has ended; whether it was asked to.
    fn has_left(&mut self, ended: Result<(Id, ()), JoinError>) -> bool {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if let Err(error) = ended {
            tracing::error!(%error, "a worker failed");
        }
        let Some(name) = self.leaving.remove(&id) else { return false };
        Metrics::forget(&name);
        tracing::info!(database = name, "its worker has ended");
        if let Some(database) = self.next.remove(&name) {
            self.begin(database);
        }
        true
    }
}
