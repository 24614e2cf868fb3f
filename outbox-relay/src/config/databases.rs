//! Which databases are served.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sqlx::postgres::PgConnectOptions;
use waybill_runtime::config::{Environment, redacted};

use super::file::DatabaseEntry;

/// The variable that lists them.
const VARIABLE: &str = "OUTBOX_RELAY_DATABASES";
/// The row of outbox_relay that the migration makes.
const RELAY_DEFAULT: &str = "default";
/// Databases of one process: each has two connections, a producer and its threads.
const DATABASES_MAX: usize = 64;

/// One database to publish from.
#[derive(Clone)]
pub struct Database {
    /// Its name in metrics, logs and `/ready`.
    pub name: String,
    /// How to connect.
    pub options: PgConnectOptions,
    /// The row of `outbox_relay` that holds its position.
    pub relay: String,
    /// The whole URL, to see whether it changed; never shown.
    url: String,
    shown: String,
}

impl Database {
    /// Where its position lies, whoever connects and however.
    fn place(&self) -> (String, u16, String, String) {
        let options = &self.options;
        let database = options.get_database().unwrap_or(options.get_username());
        (options.get_host().to_owned(), options.get_port(), database.to_owned(), self.relay.clone())
    }
}

impl PartialEq for Database {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.url, &self.relay) == (&other.name, &other.url, &other.relay)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, position {:?})", self.name, self.shown, self.relay)
    }
}

/// From the variable, or else from the file.
pub(super) fn read(env: &mut Environment, file: &[DatabaseEntry]) -> Vec<Database> {
    let entries = match env.optional(VARIABLE) {
        Some(list) => entries(env, &list),
        None => file.to_vec(),
    };
    if entries.is_empty() && env.optional(VARIABLE).is_none() {
        env.mistake(
            VARIABLE,
            "is required and not set: write name=postgres://user:password@host:port/database, several separated by \
             commas, or list [[databases]] in the file that OUTBOX_RELAY_CONFIG names",
        );
    }
    if entries.len() > DATABASES_MAX {
        env.mistake(
            VARIABLE,
            format!("lists {} databases: at most {DATABASES_MAX} a process", entries.len()),
        );
    }
    let (mut names, mut places) = (BTreeSet::new(), BTreeMap::new());
    let mut databases = Vec::with_capacity(entries.len());
    for entry in entries {
        if !names.insert(entry.name.clone()) {
            env.mistake(VARIABLE, format!("{:?} is named twice", entry.name));
        }
        let Some(database) = database(env, entry) else { continue };
        if let Some(other) = places.insert(database.place(), database.name.clone()) {
            let name = &database.name;
            env.mistake(
                VARIABLE,
                format!("{other} and {name} are the same database and position: one would wait for the other for ever"),
            );
        }
        databases.push(database);
    }
    databases
}

fn entries(env: &mut Environment, list: &str) -> Vec<DatabaseEntry> {
    let mut entries = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((name, url)) if !name.contains("://") => {
                entries.push(DatabaseEntry {
                    name: name.trim().to_owned(),
                    url: url.trim().to_owned(),
                    relay: None,
                });
            }
            _ => {
                env.mistake(VARIABLE, format!("{:?} has no name: write name=postgres://...", redacted(part)))
            }
        }
    }
    entries
}

fn database(env: &mut Environment, entry: DatabaseEntry) -> Option<Database> {
    let name_is_good = !entry.name.is_empty()
        && entry.name.len() <= 64
        && entry.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !name_is_good {
        let shown = &entry.name;
        env.mistake(VARIABLE, format!("{shown:?} is no name: 1 to 64 letters, digits, '-', '_' and '.'"));
    }
    let shown = redacted(&entry.url);
    if !entry.url.starts_with("postgres://") && !entry.url.starts_with("postgresql://") {
        env.mistake(VARIABLE, format!("{}: {shown:?} is no Postgres URL: write postgres://...", entry.name));
        return None;
    }
    match super::options(&entry.url) {
        Ok(options) if name_is_good => {
            let relay = entry.relay.unwrap_or_else(|| RELAY_DEFAULT.to_owned());
            Some(Database { name: entry.name, options, relay, url: entry.url, shown })
        }
        Ok(_) => None,
        Err(error) => {
            env.mistake(VARIABLE, format!("{}: {shown:?} can not be used: {error}", entry.name));
            None
        }
    }
}
