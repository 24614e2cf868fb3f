//! What a consumer measures.

use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::{Histogram, HistogramVec, IntCounter, IntGaugeVec};
use waybill_telemetry::metrics::{self, LATENCY_BUCKETS_S, SIZE_BUCKETS};

use crate::headers::CE_TIME;
use crate::record::Record;

/// From a message's making to its handling: milliseconds when all is well, days after an outage.
const AGE_BUCKETS_S: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, 86400.0];

#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) batch_size: Histogram,
    pub(super) batch_seconds: Histogram,
    pub(super) retries: IntCounter,
    pub(super) timeouts: IntCounter,
    pub(super) assignments: IntCounter,
    event_age: Histogram,
    lag: IntGaugeVec,
    group: String,
}

impl Metrics {
    pub(super) fn new(group: &str) -> Self {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let all: HistogramVec = metrics::histogram_vec(name, help, &["group"], buckets);
            all.with_label_values(&[group])
        };
        let counter =
            |name: &str, help: &str| metrics::counter_vec(name, help, &["group"]).with_label_values(&[group]);
        Self {
            batch_size: histogram("consumer_batch_size", "Records handed over together.", SIZE_BUCKETS),
            batch_seconds: histogram("consumer_batch_seconds", "Time to handle a batch.", LATENCY_BUCKETS_S),
            retries: counter(
                "consumer_batch_retries_total",
                "Batches tried again because the infrastructure failed.",
            ),
            timeouts: counter(
                "consumer_batch_timeouts_total",
                "Batches tried again because the handler did not answer in time.",
            ),
            assignments: counter(
                "consumer_assignments_total",
                "How often this member was assigned partitions: each time after the first is a rebalance.",
            ),
            event_age: histogram(
                "event_age_seconds",
                "From the making of a message (ce_time) to the end of its handling.",
                AGE_BUCKETS_S,
            ),
            lag: metrics::int_gauge_vec(
                "consumer_lag_records",
                "Records of the partition that this group has not handled yet.",
                &["group", "topic", "partition"],
            ),
            group: group.to_owned(),
        }
    }

    pub(super) fn handled(&self, records: &[Record], took: Duration) {
        self.batch_size.observe(records.len() as f64);
        self.batch_seconds.observe(took.as_secs_f64());
        let now = Utc::now();
        for made in records.iter().filter_map(made_at) {
            // Another machine's clock may be ahead of ours: that is no negative age.
            let age_ms = now.signed_duration_since(made).num_milliseconds().max(0);
            self.event_age.observe(age_ms as f64 / 1000.0);
        }
    }

    pub(super) fn lag(&self, topic: &str, partition: i32, records: i64) {
        self.lag.with_label_values(&[self.group.as_str(), topic, &partition.to_string()]).set(records);
    }

    /// Another member tells the partition's lag from now on.
    pub(super) fn lag_forget(&self, topic: &str, partition: i32) {
        // An error means that it was never told.
        let _ = self.lag.remove_label_values(&[self.group.as_str(), topic, &partition.to_string()]);
    }
}

fn made_at(record: &Record) -> Option<DateTime<Utc>> {
    let told = record.header(CE_TIME).and_then(|time| DateTime::parse_from_rfc3339(time).ok());
    told.map(|time| time.to_utc()).or_else(|| DateTime::from_timestamp_millis(record.timestamp_ms?))
}
