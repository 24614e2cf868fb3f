//! The lease explored: two relays on one row, every delay of an answer, every pause; never do two publish at once.

use std::time::Duration;

use outbox_relay::core::lease::{Duty, Lease};

use super::explore::walk;

/// Ticks a lease lasts; a renewal is due after two, half is five.
const LENGTH: u64 = 10;
/// Ticks the exploration runs: a lease runs out at its tenth tick, and whoever takes it over publishes for five.
const END: u64 = 16;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    lease: Option<Lease>,
    /// A request on its way: when it was asked, and the epoch granted when the database has answered.
    asked: Option<(u64, Option<Option<i64>>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u64,
    /// The row: owner, epoch, end.
    row: (Option<usize>, i64, u64),
    relays: [Holder; 2],
}

fn time(ticks: u64) -> Duration {
    Duration::from_secs(ticks)
}

fn steps(state: &State, publishes_for: &impl Fn(&Lease, u64) -> bool) -> Result<Vec<State>, String> {
    let publishing = state
        .relays
        .iter()
        .filter(|relay| relay.lease.as_ref().is_some_and(|lease| publishes_for(lease, state.now)));
    if publishing.count() > 1 {
        return Err(format!("two publish at {}", state.now));
    }
    let mut next = Vec::new();
    if state.now < END {
        next.push(State { now: state.now + 1, ..state.clone() });
    }
    for place in 0..2 {
        next.extend(relay_steps(state, place));
    }
    Ok(next)
}

/// Ask, be answered by the database, hear the answer: each at any time, so that everything may be late or stopped.
fn relay_steps(state: &State, place: usize) -> Vec<State> {
    let mut next = state.clone();
    let relay = &mut next.relays[place];
    match relay.asked {
        None => {
            let wants = relay.lease.as_ref().is_none_or(|lease| lease.duty(time(state.now)) != Duty::Publish);
            if !wants {
                return Vec::new();
            }
            relay.asked = Some((state.now, None));
        }
        Some((asked, None)) => {
            let (owner, epoch, end) = state.row;
            let held = relay.lease.as_ref().map(Lease::epoch);
            let granted = match held {
                Some(held) if owner == Some(place) && held == epoch => Some(epoch),
                None if owner.is_none_or(|owner| owner == place) || end <= state.now => Some(epoch + 1),
                _ => None,
            };
            if let Some(epoch) = granted {
                next.row = (Some(place), epoch, state.now + LENGTH);
            }
            next.relays[place].asked = Some((asked, Some(granted)));
        }
        Some((asked, Some(granted))) => {
            relay.asked = None;
            relay.lease = match (granted, relay.lease) {
                (Some(_), Some(mut lease)) => {
                    lease.renewed(time(asked));
                    Some(lease)
                }
                (Some(epoch), None) => Some(Lease::granted(time(LENGTH), epoch, time(asked))),
                (None, _) => None,
            };
        }
    }
    vec![next]
}

fn explore(publishes_for: impl Fn(&Lease, u64) -> bool) -> super::explore::Outcome {
    let idle = Holder { lease: None, asked: None };
    let first = State { now: 0, row: (None, 0, 0), relays: [idle.clone(), idle] };
    walk(first, |state| steps(state, &publishes_for), |_| Ok(()))
}

#[test]
fn never_do_two_relays_publish_at_once() {
    let outcome = explore(|lease, now| lease.may_publish(time(now)));
    say!("lease: {outcome}");
    assert_eq!(outcome.violation, None);
}

#[test]
fn a_holder_that_trusts_its_lease_for_ever_is_caught() {
    let outcome = explore(|_, _| true);
    say!("lease without stepping down: {outcome}");
    assert!(outcome.violation.is_some());
}
