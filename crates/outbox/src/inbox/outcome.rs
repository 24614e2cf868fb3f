//! What became of messages, counted.

use prometheus::{IntCounter, IntCounterVec};
use waybill_telemetry::metrics::counter_vec;

/// Counters of one group.
#[derive(Clone)]
pub(super) struct Outcomes {
    pub(super) handled: IntCounter,
    pub(super) duplicate: IntCounter,
    pub(super) skipped: IntCounter,
    pub(super) dead_letter: IntCounter,
    pub(super) redone_batches: IntCounter,
}

impl Outcomes {
    pub(super) fn new(group: &str) -> Self {
        let messages: IntCounterVec = counter_vec(
            "inbox_messages_total",
            "Messages by what became of them: handled, duplicate, skipped (no interest), dead_letter.",
            &["group", "outcome"],
        );
        let redone = counter_vec(
            "inbox_batches_redone_total",
            "Batches redone message by message, because one of them failed.",
            &["group"],
        );
        let of = |outcome| messages.with_label_values(&[group, outcome]);
        Self {
            handled: of("handled"),
            duplicate: of("duplicate"),
            skipped: of("skipped"),
            dead_letter: of("dead_letter"),
            redone_batches: redone.with_label_values(&[group]),
        }
    }
}
