//! How a database's relay is: what `/ready` says, each fault told once in the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::metrics::Metrics;
use crate::publish::PRODUCER_ENDED;

/// What keeps rows from being published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Postgres is away, refuses, or lacks the tables.
    Postgres,
    /// The stored position or the rows belong to another cluster.
    Position,
    /// No broker answers.
    Kafka,
    /// A topic is missing or not allowed.
    Topic,
    /// A row was refused.
    Delivery,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Postgres, Self::Position, Self::Kafka, Self::Topic, Self::Delivery];

    /// Its name in metrics and on `/ready`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Position => "position",
            Self::Kafka => "kafka",
            Self::Topic => "topic",
            Self::Delivery => "delivery",
        }
    }
}

/// What the relay of one database does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has not come to its database yet.
    Starting,
    /// Another relay holds the lease; this one takes over when it runs out.
    Standby {
        /// Who holds it.
        owner: String,
    },
    /// The lease was given back, by this relay or another, and is left to one that holds fewer databases.
    StandingAside,
    /// It holds the lease; no broker has answered yet.
    Connecting,
    /// It holds the lease, and brokers answer or did.
    Publishing,
}

struct State {
    phase: Phase,
    faults: BTreeMap<FaultKind, String>,
}

fn is_same_outage(kind: FaultKind, known: &str, text: &str) -> bool {
    match kind {
        FaultKind::Kafka => true,
        FaultKind::Postgres => is_an_outage(known) && is_an_outage(text),
        FaultKind::Delivery => text.starts_with(PRODUCER_ENDED) && words(known).eq(words(text)),
        FaultKind::Position | FaultKind::Topic => false,
    }
}

/// Whether this is one of the wordings of a database that can not be reached: `StoreError::Away`, `StoreError::Silent`.
fn is_an_outage(text: &str) -> bool {
    ["Postgres is away", "Postgres gave no answer"].iter().any(|wording| text.contains(wording))
}

/// A text without its numbers, ids and addresses: those of a producer's end are others at every attempt.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| !word.contains(|letter: char| letter.is_ascii_digit()))
}

/// Shared by the task that works and the listener that tells.
pub struct Status {
    database: String,
    metrics: Metrics,
    state: Mutex<State>,
}

impl Status {
    /// Of the database of this name.
    #[must_use]
    pub fn new(database: &str, metrics: Metrics) -> Self {
        for kind in FaultKind::ALL {
            metrics.fault(kind.name(), false);
        }
        let state = Mutex::new(State { phase: Phase::Starting, faults: BTreeMap::new() });
        Self { database: database.to_owned(), metrics, state }
    }

    /// A fault: logged when it is new, or about another row, topic or answer. That no broker answers, or that Postgres is
    /// away or hangs, is logged once, though every attempt words it differently.
    pub fn fault(&self, kind: FaultKind, text: &str) {
        let mut state = self.lock();
        let known = state.faults.insert(kind, text.to_owned());
        let told = known.is_some_and(|known| known == text || is_same_outage(kind, &known, text));
        if !told {
            tracing::error!(database = self.database, fault = kind.name(), "{text}");
            self.metrics.fault(kind.name(), true);
        }
    }

    /// The fault of this kind is gone.
    pub fn clear(&self, kind: FaultKind) {
        if self.lock().faults.remove(&kind).is_some() {
            tracing::info!(database = self.database, fault = kind.name(), "mended");
            self.metrics.fault(kind.name(), false);
        }
    }

    /// Another relay publishes, or is to: what kept this one from it counts no more, and would never be seen to mend.
    pub fn stand_by(&self, phase: Phase) {
        let faults = std::mem::take(&mut self.lock().faults);
        for kind in faults.into_keys() {
            tracing::info!(
                database = self.database,
                fault = kind.name(),
                "left to the relay that publishes now"
            );
            self.metrics.fault(kind.name(), false);
        }
        self.enter(phase);
    }

    /// The phase begins: logged when it is another.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase == phase {
            return;
        }
        match &phase {
            Phase::Starting | Phase::StandingAside | Phase::Connecting => {}
            Phase::Standby { owner } => {
                tracing::info!(database = self.database, owner, "another relay publishes; this one waits");
            }
            Phase::Publishing => tracing::info!(database = self.database, "this relay publishes"),
        }
        self.metrics.lease_held.set(i64::from(matches!(phase, Phase::Connecting | Phase::Publishing)));
        state.phase = phase;
    }

    /// For `/ready`: why rows are not published, or not taken over when they should be.
    ///
    /// # Errors
    /// With the reason.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.lock();
        if !state.faults.is_empty() {
            let faults = state.faults.iter().map(|(kind, text)| format!("{}: {text}", kind.name()));
            return Err(faults.collect::<Vec<_>>().join("; "));
        }
        match state.phase {
            Phase::Starting => Err("has not come to its database yet".to_owned()),
            Phase::Connecting => Err("no broker has answered yet".to_owned()),
            Phase::Standby { .. } | Phase::StandingAside | Phase::Publishing => Ok(()),
        }
    }

    /// Whether it holds the lease and nothing keeps it from publishing.
    #[must_use]
    pub fn is_publishing(&self) -> bool {
        let state = self.lock();
        state.phase == Phase::Publishing && state.faults.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn who_stands_by_has_no_fault_of_publishing() {
        let status = Status::new("stands_by", Metrics::of("stands_by"));
        for phase in [Phase::Standby { owner: "another".to_owned() }, Phase::StandingAside] {
            for kind in FaultKind::ALL {
                status.fault(kind, "away");
            }
            assert!(status.ready().is_err());
            status.stand_by(phase);
            assert_eq!(status.ready(), Ok(()));
        }
        let shown = waybill_telemetry::metrics::render();
        let mut faults =
            shown.lines().filter(|line| line.contains("outbox_relay_fault{database=\"stands_by\""));
        assert!(faults.all(|line| line.ends_with(" 0")), "{shown}");
        Metrics::forget("stands_by");
    }

    #[test]
    fn who_holds_the_lease_is_ready_when_a_broker_has_answered() {
        let status = Status::new("connects", Metrics::of("connects"));
        assert!(status.ready().unwrap_err().contains("database"));
        status.enter(Phase::Connecting);
        assert!(status.ready().unwrap_err().contains("broker"));
        status.enter(Phase::Publishing);
        assert_eq!(status.ready(), Ok(()));
        Metrics::forget("connects");
    }

    #[test]
    fn a_server_that_hangs_and_then_is_away_is_one_outage() {
        let (silent, away) =
            (StoreError::Silent(Duration::from_secs(7)), StoreError::Away(sqlx::Error::PoolClosed));
        let texts =
            [format!("keeping the lease failed: {silent}"), format!("reading the outbox failed: {away}")];
        let same = |known: &str, text: &str| is_same_outage(FaultKind::Postgres, known, text);
        for known in &texts {
            assert!(texts.iter().all(|text| same(known, text)), "{known}");
            assert!(!same(known, "keeping the lease failed: Postgres refused a statement"));
        }
    }

    #[test]
    fn a_producers_end_is_the_same_from_whichever_broker() {
        let end = |broker: &str| format!("{PRODUCER_ENDED}: Fatal error: from broker {broker}: Not allowed");
        let same = |known: &str, text: &str| is_same_outage(FaultKind::Delivery, known, text);
        assert!(same(&end("127.0.0.1:9092/bootstrap"), &end("127.0.0.1:9092/1")));
        assert!(!same(&end("127.0.0.1:9092/1"), &format!("{PRODUCER_ENDED}: Fatal error: Out of order")));
        assert!(!same("row 7 was refused by topic t", "row 8 was refused by topic t"));
    }
}
