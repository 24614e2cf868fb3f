//! Bugs on purpose: what `waybillctl verify` must catch, or it proves nothing.
//!
//! With the cargo feature `planted`, a program has the bug that `WAYBILL_PLANTED_BUG` names, and none without the variable.
//! Without the feature none of it is compiled; with it a release build is refused.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` puts bugs into programs for tests: a release build must not have it");

/// A bug that can be planted. Each breaks one mechanism that keeps effects to once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// `inbox_row_dropped`: messages are handled, and the inbox does not remember them.
    InboxRowDropped,
    /// `tombstone_skipped`: a release that comes before its reserve leaves nothing behind.
    TombstoneSkipped,
    /// `offset_stored_early`: offsets are stored before the batch is handled.
    OffsetStoredEarly,
    /// `natural_key_missing`: an authorization asked for again is another payment.
    NaturalKeyMissing,
}

/// Whether this program has the bug.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is_planted(_: Bug) -> bool {
    false
}

/// Whether this program has the bug.
///
/// # Panics
/// When `WAYBILL_PLANTED_BUG` names no bug.
#[cfg(feature = "planted")]
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    static PLANTED: std::sync::LazyLock<Option<Bug>> = std::sync::LazyLock::new(|| {
        let name = crate::config::Environment::from_process().optional("WAYBILL_PLANTED_BUG")?;
        let bug = named(&name).unwrap_or_else(|| panic!("WAYBILL_PLANTED_BUG={name} names no bug"));
        tracing::warn!(?bug, "this program has a bug on purpose");
        Some(bug)
    });
    *PLANTED == Some(bug)
}

#[cfg(feature = "planted")]
fn named(name: &str) -> Option<Bug> {
    Some(match name {
        "inbox_row_dropped" => Bug::InboxRowDropped,
        "tombstone_skipped" => Bug::TombstoneSkipped,
        "offset_stored_early" => Bug::OffsetStoredEarly,
        "natural_key_missing" => Bug::NaturalKeyMissing,
        _ => return None,
    })
}
