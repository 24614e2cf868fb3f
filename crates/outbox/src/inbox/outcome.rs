//! What became of messages, counted.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use waybill_telemetry::metrics::{counter_vec, int_gauge_vec};

/// Counters of one group.
#[derive(Clone)]
pub(crate) struct Outcomes {
    pub(crate) handled: IntCounter,
    pub(crate) duplicate: IntCounter,
    pub(crate) skipped: IntCounter,
    pub(crate) retried: IntCounter,
    pub(crate) held: IntCounter,
    pub(crate) dead_letter: IntCounter,
    pub(crate) redone_batches: IntCounter,
    pub(crate) paused_storm: IntCounter,
    pub(crate) paused_held_bytes: IntCounter,
    /// By state.
    pub(crate) parked_keys: IntGaugeVec,
    pub(crate) held_messages: IntGauge,
    pub(crate) held_bytes: IntGauge,
    pub(crate) letters_open: IntGauge,
    group: String,
}

impl Outcomes {
    pub(crate) fn new(group: &str) -> Self {
        let messages: IntCounterVec = counter_vec(
            "inbox_messages_total",
            "Messages by what became of them: handled, duplicate, skipped (no interest), retried, held, dead_letter.",
            &["group", "outcome"],
        );
        let redone = counter_vec(
            "inbox_batches_redone_total",
            "Batches redone in parts, because a message of theirs failed and nobody knew which.",
            &["group"],
        );
        let of = |outcome| messages.with_label_values(&[group, outcome]);
        let pauses = counter_vec(
            "retry_pauses_total",
            "Batches put off because of a bound: storm (most keys fail alike), held_bytes.",
            &["group", "reason"],
        );
        Self {
            handled: of("handled"),
            duplicate: of("duplicate"),
            skipped: of("skipped"),
            retried: of("retried"),
            held: of("held"),
            dead_letter: of("dead_letter"),
            redone_batches: redone.with_label_values(&[group]),
            // Both are told from the start: to whoever watches, the step from nothing to 1 is no increase.
            paused_storm: pauses.with_label_values(&[group, "storm"]),
            paused_held_bytes: pauses.with_label_values(&[group, "held_bytes"]),
            parked_keys: int_gauge_vec(
                "retry_parked_keys",
                "Parked keys by state: retrying, draining, blocked.",
                &["group", "state"],
            ),
            held_messages: int_gauge_vec("retry_held_messages", "Messages behind parked keys.", &["group"])
                .with_label_values(&[group]),
            held_bytes: int_gauge_vec(
                "retry_held_bytes",
                "Bytes of the messages behind parked keys.",
                &["group"],
            )
            .with_label_values(&[group]),
            letters_open: int_gauge_vec(
                "dead_letters_open",
                "Open dead letters in the service's database, counted every 5 seconds; 100000 means so many or more.",
                &["group"],
            )
            .with_label_values(&[group]),
            group: group.to_owned(),
        }
    }

    /// State, keys, held messages, held bytes.
    pub(crate) fn parked(&self, summary: &[(String, i64, i64, i64)]) {
        for state in ["retrying", "draining", "blocked"] {
            let keys = summary.iter().find(|row| row.0 == state).map_or(0, |row| row.1);
            self.parked_keys.with_label_values(&[self.group.as_str(), state]).set(keys);
        }
        self.held_messages.set(summary.iter().map(|row| row.2).sum());
        self.held_bytes.set(summary.iter().map(|row| row.3).sum());
    }
}
