//! What one database's relay measures; docs/relay.md explains each.

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use waybill_telemetry::metrics::{
    LATENCY_BUCKETS_S, SIZE_BUCKETS, counter_vec, gauge_vec, histogram_vec, int_gauge_vec,
};

use crate::status::FaultKind;

/// Gauges with the database's label alone, without their prefix.
const GAUGES: [&str; 4] = ["backlog_rows", "in_flight_rows", "lease_held", "position_lag_transactions"];
/// Counters with the database's label alone, without their prefix.
const COUNTERS: [&str; 6] = [
    "published_rows_total",
    "published_bytes_total",
    "produce_errors_total",
    "leases_total",
    "handed_over_total",
    "positions_stored_total",
];

/// Histograms, with their buckets.
const PIECE_ROWS: (&str, &[f64]) = ("outbox_relay_piece_rows", SIZE_BUCKETS);
const READ: (&str, &[f64]) = ("outbox_relay_read_seconds", LATENCY_BUCKETS_S);
const ACKNOWLEDGED: (&str, &[f64]) = ("outbox_relay_acknowledged_seconds", LATENCY_BUCKETS_S);
/// Gauges of seconds.
const AGE: &str = "outbox_relay_oldest_unpublished_age_seconds";
const UNANSWERED: &str = "outbox_relay_unanswered_read_seconds";

/// The metrics of one database, its label already applied.
#[derive(Clone)]
pub struct Metrics {
    /// Age of the oldest row known and not acknowledged.
    pub oldest_age_seconds: Gauge,
    /// How long no read was answered that was asked.
    pub unanswered_read_seconds: Gauge,
    /// Rows known to wait.
    pub backlog_rows: IntGauge,
    /// Rows handed to Kafka and not acknowledged.
    pub in_flight_rows: IntGauge,
    /// Rows acknowledged.
    pub rows: IntCounter,
    /// Their keys, headers and payloads.
    pub bytes: IntCounter,
    /// Rows of each read that found some.
    pub piece_rows: Histogram,
    /// How long each read took that found some.
    pub read_seconds: Histogram,
    /// From the hand-over of a read's first row to its last acknowledgement.
    pub acknowledged_seconds: Histogram,
    /// Deliveries that failed for good and made the producer start again.
    pub produce_errors: IntCounter,
    /// 1 while this process holds the lease.
    pub lease_held: IntGauge,
    /// Leases taken.
    pub leases: IntCounter,
    /// Leases given back so that relays hold equally many.
    pub handed_over: IntCounter,
    /// Transactions between the stored position and the newest snapshot read.
    pub position_lag: IntGauge,
    /// Positions stored.
    pub positions: IntCounter,
    rounds: IntCounterVec,
    faults: IntGaugeVec,
    database: String,
}

impl Metrics {
    /// The metrics of the database of this name.
    #[must_use]
    pub fn of(database: &str) -> Self {
        let gauge = |name: &str, help: &str| {
            int_gauge_vec(&format!("outbox_relay_{name}"), help, &["database"]).with_label_values(&[database])
        };
        let counter = |name: &str, help: &str| {
            counter_vec(&format!("outbox_relay_{name}"), help, &["database"]).with_label_values(&[database])
        };
        let age = gauge_vec(
            AGE,
            "Age of the oldest row known and not acknowledged, by the database's clock; 0 when there is none.",
            &["database"],
        );
        let unanswered =
            gauge_vec(UNANSWERED, "How long no read was answered that was asked.", &["database"]);
        let histogram = |(name, buckets), help: &str| {
            histogram_vec(name, help, &["database"], buckets).with_label_values(&[database])
        };
        Self {
            oldest_age_seconds: age.with_label_values(&[database]),
            unanswered_read_seconds: unanswered.with_label_values(&[database]),
            backlog_rows: gauge("backlog_rows", "Rows of the round being read that are not acknowledged."),
            in_flight_rows: gauge("in_flight_rows", "Rows handed to Kafka and not acknowledged."),
            rows: counter("published_rows_total", "Rows acknowledged by Kafka, repeats included."),
            bytes: counter("published_bytes_total", "Keys, headers and payloads acknowledged by Kafka."),
            piece_rows: histogram(PIECE_ROWS, "Rows of each read that found some."),
            read_seconds: histogram(READ, "How long each read took that found rows."),
            acknowledged_seconds: histogram(
                ACKNOWLEDGED,
                "From the hand-over of a read's first row to its last acknowledgement.",
            ),
            produce_errors: counter(
                "produce_errors_total",
                "Deliveries that failed and made the producer start again.",
            ),
            lease_held: gauge("lease_held", "1 while this process holds the lease of this database."),
            leases: counter("leases_total", "Leases taken by this process."),
            handed_over: counter(
                "handed_over_total",
                "Leases given back because a relay that waited held fewer databases.",
            ),
            position_lag: gauge(
                "position_lag_transactions",
                "Transactions between the stored position and the newest snapshot read.",
            ),
            positions: counter("positions_stored_total", "Writes of the position."),
            rounds: counter_vec(
                "outbox_relay_rounds_total",
                "Rounds begun: empty, small (one read) or large.",
                &["database", "size"],
            ),
            faults: int_gauge_vec(
                "outbox_relay_fault",
                "1 while this keeps the relay from publishing.",
                &["database", "kind"],
            ),
            database: database.to_owned(),
        }
    }

    /// Removes all of the database of this name, so that nobody is warned of what is served no more.
    pub fn forget(database: &str) {
        // Their descriptions are those of the first call.
        let label = &[database];
        let forget_gauge = |name: &str| {
            let _absent =
                int_gauge_vec(&format!("outbox_relay_{name}"), "", &["database"]).remove_label_values(label);
        };
        let forget_counter = |name: &str| {
            let _absent =
                counter_vec(&format!("outbox_relay_{name}"), "", &["database"]).remove_label_values(label);
        };
        for name in GAUGES {
            forget_gauge(name);
        }
        for name in COUNTERS {
            forget_counter(name);
        }
        for name in [AGE, UNANSWERED] {
            let _absent = gauge_vec(name, "", &["database"]).remove_label_values(label);
        }
        for (name, buckets) in [PIECE_ROWS, READ, ACKNOWLEDGED] {
            let _absent = histogram_vec(name, "", &["database"], buckets).remove_label_values(label);
        }
        let rounds = counter_vec("outbox_relay_rounds_total", "", &["database", "size"]);
        for size in ["empty", "small", "large"] {
            let _absent = rounds.remove_label_values(&[database, size]);
        }
        let faults = int_gauge_vec("outbox_relay_fault", "", &["database", "kind"]);
        for kind in FaultKind::ALL {
            let _absent = faults.remove_label_values(&[database, kind.name()]);
        }
    }

    /// A round began: `empty`, `small` or `large`.
    pub fn round(&self, size: &str) {
        self.rounds.with_label_values(&[self.database.as_str(), size]).inc();
    }

    /// A fault of this kind is there, or gone.
    pub fn fault(&self, kind: &str, present: bool) {
        self.faults.with_label_values(&[self.database.as_str(), kind]).set(i64::from(present));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_forgotten_database() {
        let metrics = Metrics::of("forgotten");
        metrics.round("small");
        for kind in FaultKind::ALL {
            metrics.fault(kind.name(), true);
        }
        assert!(waybill_telemetry::metrics::render().contains("forgotten"));
        Metrics::forget("forgotten");
        let left = waybill_telemetry::metrics::render();
        assert!(!left.contains("forgotten"), "{left}");
    }

    #[test]
    fn every_metric_of_the_alerts_is_there() {
        Metrics::of("alerts").fault(FaultKind::Kafka.name(), false);
        // That of the configuration's file.
        let elsewhere = "outbox_relay_config_refused";
        let there = waybill_telemetry::metrics::render();
        let rules = include_str!("../../deploy/alerts/outbox-relay.rules.yml");
        let names = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in names.filter(|name| name.starts_with("outbox_relay_") && *name != elsewhere) {
            assert!(there.contains(&format!("# TYPE {name} ")), "{name} is in an alert, and nowhere else");
        }
    }
}
