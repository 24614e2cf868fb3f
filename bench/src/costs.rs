//! What orders cost the databases: two marks, and the difference by order.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use sqlx::PgPool;

use crate::statements::{self, Counters, Sender};
use crate::system::System;
use crate::wal::{self, Place, Point, TableBytes, Written};

/// The instruments that this server allows.
#[derive(Debug)]
pub struct Instruments {
    pool: PgPool,
    /// Whether statements can be counted.
    pub statements: bool,
    /// Whether the log can be read.
    pub wal: bool,
    databases: Vec<String>,
    places: Vec<Place>,
}

/// Everything countable at one moment.
#[derive(Debug)]
pub struct Mark {
    at: Instant,
    statements: Option<statements::Look>,
    round_trips: [u64; 3],
    wal: Option<Point>,
}

/// What was counted in one database between two marks, by order. `None`: could not look.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The service whose database it is.
    pub database: &'static str,
    /// Statements the service sent, `begin` and `commit` among them.
    pub statements: Option<f64>,
    /// Statements the relay sent here.
    pub relay_statements: Option<f64>,
    /// Round trips of the service, counted on the wire; only while it is metered.
    pub round_trips: Option<f64>,
    /// The service's WAL in bytes, commits included, page images left out.
    pub wal_bytes: Option<f64>,
    /// The relay's.
    pub relay_wal_bytes: Option<f64>,
    /// Page images in bytes.
    pub page_image_bytes: Option<f64>,
    /// Each statement.
    pub details: Vec<Detail>,
}

/// One statement, by order.
#[derive(Debug, Clone, Serialize)]
pub struct Detail {
    /// Who sends it.
    pub sender: Sender,
    /// Executions.
    pub calls: f64,
    /// Milliseconds in the server.
    pub exec_ms: f64,
    /// WAL bytes without the commit.
    pub wal_bytes: f64,
    /// Its text, shortened.
    pub text: String,
}

/// What runs when nothing is asked for: taken off what is counted later.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// The service whose database it is.
    pub database: &'static str,
    /// Statements of the service in a second.
    pub statements_per_s: Option<f64>,
    /// Statements of the relay in a second.
    pub relay_statements_per_s: Option<f64>,
    /// Round trips of the service in a second.
    pub round_trips_per_s: f64,
}

/// The difference of two marks, absolute.
#[derive(Debug)]
struct Difference {
    seconds: f64,
    round_trips: [f64; 3],
    statements: Option<[Vec<Counters>; 3]>,
    wal: Option<Vec<(String, Written)>>,
}

impl Instruments {
    /// Finds out what can be looked at.
    ///
    /// # Errors
    /// When the server can not be asked.
    pub async fn of(system: &System) -> Result<Self> {
        let pool = system.monitor.pool.clone();
        let statements = statements::available(&pool).await?;
        let wal = wal::available(&pool).await;
        let mut places = Vec::new();
        for service in system.services() {
            places.push(Place::of(&service.database.pool).await?);
        }
        let databases = system.services().map(|service| service.database.name().to_owned()).to_vec();
        Ok(Self { pool, statements, wal, databases, places })
    }

    /// Reads all counters.
    ///
    /// # Errors
    /// When the server can not be asked.
    pub async fn mark(&self, system: &System) -> Result<Mark> {
        let statements = if self.statements {
            Some(statements::Look::at(&self.pool, &self.databases).await?)
        } else {
            None
        };
        let wal = if self.wal { Some(Point::now(&self.pool).await?) } else { None };
        let round_trips = system.services().map(|service| service.meter.round_trips());
        Ok(Mark { at: Instant::now(), statements, round_trips, wal })
    }

    /// What runs by itself between two marks with no order about.
    ///
    /// # Errors
    /// When the log can not be read.
    pub async fn idle(&self, from: &Mark, to: &Mark) -> Result<Vec<Idle>> {
        let difference = self.difference(from, to).await?;
        let idle = |place: usize, database| Idle {
            database,
            statements_per_s: difference
                .calls(place, Sender::Service)
                .map(|calls| calls / difference.seconds),
            relay_statements_per_s: difference
                .calls(place, Sender::Relay)
                .map(|calls| calls / difference.seconds),
            round_trips_per_s: difference.round_trips[place] / difference.seconds,
        };
        Ok(NAMES.iter().enumerate().map(|(place, name)| idle(place, name)).collect())
    }

    /// What `orders` orders cost between two marks, less what would have run without them. `metered`: the round trips
    /// were counted too.
    ///
    /// # Errors
    /// When the log can not be read.
    pub async fn costs(
        &self,
        from: &Mark,
        to: &Mark,
        orders: f64,
        idle: &[Idle],
        metered: bool,
    ) -> Result<Vec<Cost>> {
        let difference = self.difference(from, to).await?;
        let cost = |place: usize, database| {
            let seconds = difference.seconds;
            let less = |count: f64, per_s: f64| ((count - per_s * seconds) / orders).max(0.0);
            let rest = idle.get(place);
            let written = difference.wal.as_ref().and_then(|wal| wal.get(place)).map(|(_, written)| written);
            let bytes = |of: fn(&Written) -> i64| written.map(|written| real(of(written)) / orders);
            Cost {
                database,
                statements: difference.calls(place, Sender::Service).map(|calls| {
                    less(calls, rest.and_then(|idle| idle.statements_per_s).unwrap_or_default())
                }),
                relay_statements: difference.calls(place, Sender::Relay).map(|calls| {
                    less(calls, rest.and_then(|idle| idle.relay_statements_per_s).unwrap_or_default())
                }),
                round_trips: metered.then(|| {
                    less(difference.round_trips[place], rest.map_or(0.0, |idle| idle.round_trips_per_s))
                }),
                wal_bytes: bytes(|written| written.service_bytes),
                relay_wal_bytes: bytes(|written| written.relay_bytes),
                page_image_bytes: bytes(|written| written.page_image_bytes),
                details: difference.details(place, orders),
            }
        };
        Ok(NAMES.iter().enumerate().map(|(place, name)| cost(place, name)).collect())
    }

    /// The tables that most WAL was written for between two marks, by order. `None`: could not look.
    ///
    /// # Errors
    /// When the log can not be read.
    pub async fn tables(&self, from: &Mark, to: &Mark, orders: f64) -> Result<Option<Vec<TableBytes>>> {
        let (Some(from), Some(to)) = (&from.wal, &to.wal) else { return Ok(None) };
        let mut tables = wal::by_table(&self.pool, &self.places, from, to, orders).await?;
        for table in &mut tables {
            let place = self.databases.iter().position(|name| *name == table.database);
            table.database = place.map_or("", |place| NAMES[place]).to_owned();
        }
        Ok(Some(tables))
    }

    async fn difference(&self, from: &Mark, to: &Mark) -> Result<Difference> {
        let wal = match (&from.wal, &to.wal) {
            (Some(from), Some(to)) => Some(wal::written(&self.pool, &self.places, from, to).await?),
            _ => None,
        };
        let statements = match (&from.statements, &to.statements) {
            (Some(from), Some(to)) => {
                let added = |place: usize| to.since(from, &self.databases[place]);
                Some([added(0), added(1), added(2)])
            }
            _ => None,
        };
        let turns = |place: usize| {
            let counted = to.round_trips[place].saturating_sub(from.round_trips[place]);
            f64::from(u32::try_from(counted).unwrap_or(u32::MAX))
        };
        let seconds = to.at.duration_since(from.at).as_secs_f64();
        Ok(Difference { seconds, round_trips: [turns(0), turns(1), turns(2)], statements, wal })
    }
}

/// The services in the order of [`System::services`].
const NAMES: [&str; 3] = ["orders", "inventory", "payments"];

impl Difference {
    fn calls(&self, place: usize, sender: Sender) -> Option<f64> {
        let statements = &self.statements.as_ref()?[place];
        Some(
            statements
                .iter()
                .filter(|counted| counted.sender == sender)
                .map(|counted| real(counted.calls))
                .sum(),
        )
    }

    fn details(&self, place: usize, orders: f64) -> Vec<Detail> {
        let statements = self.statements.as_ref().map(|all| all[place].as_slice()).unwrap_or_default();
        let detail = |counted: &Counters| Detail {
            sender: counted.sender,
            calls: real(counted.calls) / orders,
            exec_ms: counted.exec_ms / orders,
            wal_bytes: real(counted.wal_bytes) / orders,
            text: counted.text.clone(),
        };
        statements.iter().map(detail).collect()
    }
}

/// A counter as a real number: exact up to 2^53, far beyond any run.
#[expect(clippy::cast_precision_loss, reason = "counters stay far below 2^53")]
#[must_use]
pub fn real(count: i64) -> f64 {
    count as f64
}
