//! How long a state waits: pure arithmetic; the database's clock turns it into a time.

use std::time::Duration;

use crate::definition::{Definition, Kind};
use crate::state::{Phase, State, Wait};

/// The first look whether a command is published comes after a quarter of its deadline, but not later than this.
const PUBLISHED_CHECK_MS_MAX: u64 = 5_000;
/// Back-off after the first failure: long enough for a participant's restart to begin, short enough not to be felt.
const BACKOFF_MS_MIN: u64 = 500;
/// Back-off never grows beyond this: a participant that is back is asked within a minute.
const BACKOFF_MS_MAX: u64 = 60_000;

/// What a state waits for, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Timer {
    /// A command is out whose publication has to be seen before its deadline starts.
    pub(crate) sent: bool,
    /// When to look next; `None` when the state waits for nobody's clock.
    pub(crate) due_in_ms: Option<i64>,
    /// The deadline, from the time the command was seen to be published.
    pub(crate) wait_ms: Option<i64>,
}

impl Timer {
    /// The timer of `state`.
    pub(crate) fn of<D>(definition: &Definition<D>, state: &State) -> Self {
        match state {
            State::Acting { wait: Wait::Reply | Wait::LastCall, .. }
            | State::Compensating { wait: Wait::Reply | Wait::LastCall, .. } => {
                let wait = deadline(definition, state);
                let check = (wait / 4).min(Duration::from_millis(PUBLISHED_CHECK_MS_MAX));
                Self { sent: true, due_in_ms: Some(millis(check).max(1)), wait_ms: Some(millis(wait)) }
            }
            State::Acting { attempt, wait: Wait::BackOff, .. }
            | State::Compensating { attempt, wait: Wait::BackOff, .. } => {
                let wait = Some(millis(backoff(*attempt)));
                Self { sent: false, due_in_ms: wait, wait_ms: wait }
            }
            State::StuckActing { .. } | State::StuckCompensating { .. } | State::Ended(_) => Self::default(),
        }
    }
}

/// The current step's or compensation's deadline; the smallest wait for a state that is not of this definition.
fn deadline<D>(definition: &Definition<D>, state: &State) -> Duration {
    let row = state.at().and_then(|(step, phase)| Some((&definition.rows[definition.place(step)?], phase)));
    match row {
        Some((row, Phase::Act)) => row.step.deadline,
        Some((row, Phase::Compensate)) => match &row.kind {
            Kind::Compensatable(compensation) => compensation.deadline,
            Kind::Pivot | Kind::Retriable => row.step.deadline,
        },
        None => Duration::from_secs(1),
    }
}

/// Doubles with each failed attempt. Without chance, as the engine is: sagas failing together are spread by the sweeper's batches.
fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    Duration::from_millis((BACKOFF_MS_MIN << doublings).min(BACKOFF_MS_MAX))
}

/// Whole milliseconds; a definition's deadlines are bounded, so nothing is lost.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let seen: Vec<u64> = [1, 2, 3, 8, 9, u32::MAX].map(|n| backoff(n).as_millis() as u64).to_vec();
        assert_eq!(seen, [500, 1_000, 2_000, 60_000, 60_000, 60_000]);
    }
}
