//! Waiting for something to become true: bounded polling that says where and for what it waited.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// First pause between two looks; doubled up to [`PAUSE_MS_MAX`], so that quick things are seen quickly.
const PAUSE_MS_FIRST: u64 = 2;
/// Longest pause between two looks: a waiting test costs the servers at most ten questions a second.
const PAUSE_MS_MAX: u64 = 100;

/// Asks `look` until it answers `Some`, and returns what it found.
///
/// # Panics
/// After `timeout`, naming the line that waited.
#[track_caller]
pub fn eventually<T>(timeout: Duration, look: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let place = Location::caller();
    poll(timeout, look, move || panic!("nothing within {timeout:?}: {place} waited in vain"))
}

/// [`eventually`] with a word for what is waited for, told when the time is over.
///
/// # Panics
/// After `timeout`, naming `what` and the line that waited.
#[track_caller]
pub fn eventually_named<T>(
    what: &str,
    timeout: Duration,
    look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let place = Location::caller();
    poll(timeout, look, move || panic!("no {what} within {timeout:?}: {place} waited in vain"))
}

async fn poll<T>(
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
    give_up: impl FnOnce() -> T,
) -> T {
    let started = Instant::now();
    let mut pause_ms = PAUSE_MS_FIRST;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        if started.elapsed() >= timeout {
            return give_up();
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}
