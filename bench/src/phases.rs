//! The phases: one order alone; a closed loop as fast as the path sustains; an open loop at a given rate.

pub mod closed;
pub mod open;
pub mod single;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::journal::Journal;

/// Longest time without one more order ending before a phase gives up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the journal is looked at while waiting.
const POLL: Duration = Duration::from_millis(20);

/// Waits until the end of every accepted order was seen.
async fn all_ended(journal: &Journal) -> Result<()> {
    let mut moved = std::time::Instant::now();
    let mut last = usize::MAX;
    loop {
        let open = journal.accepted_count().saturating_sub(journal.ended_count());
        if open == 0 {
            return Ok(());
        }
        if open != last {
            (last, moved) = (open, std::time::Instant::now());
        }
        ensure!(
            moved.elapsed() < STALL_TIMEOUT,
            "{open} orders accepted, and none ended for {STALL_TIMEOUT:?}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Whether an event ends an order.
fn is_end(kind: &str) -> bool {
    matches!(kind, "OrderConfirmed" | "OrderRejected" | "OrderCancelled")
}
