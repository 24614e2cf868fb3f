//! Waiting for less than the runtime's timers can.

use std::time::Duration;

/// The runtime's timers go by whole milliseconds, and round up twice: half a millisecond takes one to two. Of longer pauses
/// that is a small part.
const SHORT_MAX: Duration = Duration::from_millis(3);

/// Waits so long. A short time is slept on another thread, whose clock is the kernel's: some twenty microseconds of
/// processor time, where the timer would add a millisecond to what every row waits.
pub(super) async fn pause(time: Duration) {
    if time.is_zero() {
        return;
    }
    if time >= SHORT_MAX {
        return tokio::time::sleep(time).await;
    }
    // It ends early only with the runtime.
    let _slept = tokio::task::spawn_blocking(move || std::thread::sleep(time)).await;
}
