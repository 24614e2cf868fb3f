//! What this service counts, besides what its crates do.

use std::sync::LazyLock;

use prometheus::IntCounterVec;
use waybill_telemetry::metrics::counter_vec;

use crate::domain::order::Status;

static CHANGES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter_vec(
        "orders_changes_total",
        "Orders by the status they took. Counted when written: a batch that is rolled back and repeated counts again.",
        &["status"],
    )
});

/// An order took this status.
pub(crate) fn changed_to(status: Status) {
    CHANGES.with_label_values(&[status.as_str()]).inc();
}
