//! One database's relay: takes the lease, reads and publishes under it, begins again after a fault.
//!
//! Nothing is remembered from one tenure of the lease to the next, nor over a broken connection: a database that
//! crashed may give out again the transaction ids of which nothing durable speaks, and then only its stored position
//! is right (`tests/it/model` shows the row that is lost otherwise). A reader that lets go of its connection in the middle
//! of a tenure goes on only when the lease's connection shows that the server did not crash meanwhile.

mod age;
mod keeping;
mod on_its_way;
mod pause;
mod publishing;
mod reading;
mod sharing;
mod tenure;

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::retry::Backoff;

use crate::config::{Config, Database, Tuning};
use crate::core::lease::Lease;
use crate::core::position::Position;
use crate::metrics::Metrics;
use crate::status::{FaultKind, Phase, Status};
use crate::store::{Grant, Keeper, KeeperError};
use age::Age;
use publishing::Publishing;
pub use sharing::Sharing;
use tenure::{End, Tenure};

/// First and longest pause after a tenure ended in a fault.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often one that waits asks for the lease: a clean hand-over is taken up within this time.
const STANDBY_PAUSE: Duration = Duration::from_millis(250);
/// It asks so long after the end of a lease that was not renewed.
const AFTER_ITS_END: Duration = Duration::from_millis(1);

/// The relay of one database.
pub struct Worker {
    database: Database,
    tuning: Tuning,
    kafka: ClientConfig,
    owner: String,
    shutdown: Shutdown,
    sharing: Sharing,
    /// Given back for balance, and not known yet who took it.
    handed_over: bool,
    /// How long rows on their way are waited for at the end.
    drain: Duration,
    status: Arc<Status>,
    metrics: Metrics,
    age: Arc<Age>,
    /// Beginning of this worker's monotonic clock.
    started: Instant,
    /// After a failed delivery so many of the next tenure's rows travel alone, so that nothing passes the one that is
    /// refused, and it is known which.
    rows_alone: usize,
}

impl Worker {
    /// For one of the configuration's databases; `sharing` is that of all workers of the process.
    #[must_use]
    pub fn new(config: &Config, database: &Database, shutdown: Shutdown, sharing: Sharing) -> Self {
        let metrics = Metrics::of(&database.name);
        // Time to store the position and to close what is open.
        let closing = Duration::from_millis(1_500).min(config.shutdown_timeout / 2);
        Self {
            database: database.clone(),
            tuning: config.tuning,
            kafka: config.kafka.clone(),
            // Each database's own: two workers of a process never take a lease from each other.
            owner: format!("{}/{}", config.owner, database.name),
            shutdown,
            sharing,
            handed_over: false,
            drain: config.shutdown_timeout.saturating_sub(closing),
            status: Arc::new(Status::new(&database.name, metrics.clone())),
            metrics,
            age: Arc::default(),
            started: Instant::now(),
            rows_alone: 0,
        }
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Works until the shutdown is requested.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !self.shutdown.is_requested() {
            let end = self.tenure().await;
            self.age.show(None, &self.metrics);
            self.tell(&end);
            if end.progress {
                backoff.reset();
            }
            self.rows_alone = match end.why {
                End::Delivery(_) => end.refused.max(1),
                _ if end.progress => 0,
                _ => self.rows_alone,
            };
            // Who gives back for balance waits in line again at once.
            self.handed_over = matches!(end.why, End::HandedOver);
            if !self.handed_over {
                self.shutdown.sleep(backoff.next_wait()).await;
            }
        }
        self.settle(None);
    }

    /// From connecting to the loss of the lease, a fault or the shutdown.
    async fn tenure(&mut self) -> Tenure {
        let granted = self.lease().await;
        self.settle(None);
        match granted {
            Ok(Some((keeper, lease, position))) => {
                self.metrics.leases.inc();
                self.status.enter(Phase::Connecting);
                let tenure = Publishing::run(self, keeper, lease, position).await;
                self.sharing.lost();
                if tenure.why.is_a_fault() {
                    self.sharing.unwell();
                }
                let handed_over = matches!(tenure.why, End::HandedOver);
                self.status.enter(if handed_over { Phase::StandingAside } else { Phase::Starting });
                tenure
            }
            Ok(None) => Tenure::before_publishing(End::Shutdown),
            Err(error) => Tenure::before_publishing(End::Keeping(error)),
        }
    }

    /// Connects and waits for the lease; `None` when the shutdown came first.
    async fn lease(&mut self) -> Result<Option<(Keeper, Lease, Position)>, KeeperError> {
        self.age.asked();
        let length = self.tuning.lease;
        let (options, relay, shown) = (&self.database.options, &self.database.relay, self.sharing.shown());
        let mut keeper = Keeper::connect(options, relay, &self.owner, length, shown).await?;
        while !self.shutdown.is_requested() {
            let asked_at = self.started.elapsed();
            match keeper.acquire(self.sharing.shown()).await? {
                Grant::Granted { epoch, position } => {
                    self.sharing.took();
                    self.settle(Some(&self.owner.clone()));
                    tracing::info!(database = self.database.name, epoch, %position, "the lease is taken");
                    return Ok(Some((keeper, Lease::granted(length, epoch, asked_at), position)));
                }
                Grant::Held { owner, left } => {
                    self.settle(Some(&owner));
                    self.stand_by(Phase::Standby { owner });
                    self.shutdown.sleep(standby_pause(left)).await;
                }
                Grant::Left => {
                    self.stand_by(Phase::StandingAside);
                    self.shutdown.sleep(STANDBY_PAUSE).await;
                }
            }
        }
        Ok(None)
    }

    /// Another relay publishes, or is to: faults and ages are its own.
    fn stand_by(&self, phase: Phase) {
        self.status.stand_by(phase);
        self.age.forget();
        self.age.show(None, &self.metrics);
    }

    /// Says who took what was given back for balance, where that was so; `None` when it will not be known.
    fn settle(&mut self, owner: Option<&str>) {
        if !std::mem::take(&mut self.handed_over) {
            return;
        }
        self.sharing.settled(owner != Some(self.owner.as_str()));
        let database = &self.database.name;
        match owner {
            None => {}
            Some(owner) if *owner == self.owner => {
                tracing::info!(
                    database,
                    "given back for balance, and nobody took it: this relay takes it again"
                );
            }
            Some(owner) => tracing::info!(database, owner, "handed over for balance"),
        }
    }

    /// A fault while the lease is held.
    fn fault(&self, kind: FaultKind, text: &str) {
        self.sharing.unwell();
        self.status.fault(kind, text);
    }

    /// A fault of the database, told before what is on its way is waited for: `/ready` says the truth meanwhile.
    fn tell_at_once(&self, why: &End) {
        if let Some(kind) = why.fault_of_the_database() {
            self.status.fault(kind, &with_causes(why));
        }
    }

    /// Says why a tenure ended, where it is a fault and was not told at once.
    fn tell(&self, end: &Tenure) {
        let kind = match &end.why {
            End::Shutdown | End::HandedOver => return,
            End::LeaseLost => {
                tracing::warn!(
                    database = self.database.name,
                    "the lease is lost; what was on its way may be published twice"
                );
                return;
            }
            End::Delivery(_) | End::Row(_) => FaultKind::Delivery,
            End::Producer(_) => FaultKind::Kafka,
            // Told at once, where it ended publishing.
            End::Reading(_) | End::Keeping(_) => {
                end.why.fault_of_the_database().unwrap_or(FaultKind::Postgres)
            }
        };
        if matches!(kind, FaultKind::Delivery) {
            self.metrics.produce_errors.inc();
        }
        if end.refused > 1 {
            tracing::info!(
                database = self.database.name,
                rows = end.refused,
                "a batch was refused: its rows are sent one by one, to know which of them is the cause"
            );
            return;
        }
        self.status.fault(kind, &with_causes(&end.why));
    }
}

/// How long one that waits does not ask, when the lease will last so long unless it is renewed.
fn standby_pause(left: Duration) -> Duration {
    STANDBY_PAUSE.min(left + AFTER_ITS_END)
}

/// An error and its causes in one line.
fn with_causes(end: &End) -> String {
    let mut text = end.to_string();
    let mut cause = end.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_not_renewed_is_asked_for_at_its_end() {
        let ms = Duration::from_millis;
        assert_eq!(standby_pause(ms(9_000)), STANDBY_PAUSE, "a clean end may come at any time");
        assert_eq!(standby_pause(ms(40)), ms(41));
        assert!(standby_pause(Duration::ZERO) > Duration::ZERO);
    }
}
