//! What the provider's answer, or its silence, does to a payment.

use super::payment::{Operation, Payment, Reply, Schedule, State, Transition};

/// Tries of one operation before it is given up: with [`delay_ms`] between them about two and a half minutes, longer
/// than a provider's usual restart.
pub const TRIES_MAX: i32 = 12;

/// First wait after silence.
const DELAY_FIRST_MS: i64 = 200;
/// Longest wait: one call each half minute is no load for a provider that is coming back.
const DELAY_MS_MAX: i64 = 30_000;

/// How long to wait before asking again, after this many tries (from 1): doubles up to the longest.
#[must_use]
pub fn delay_ms(tries: i32) -> i64 {
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(0).min(16);
    (DELAY_FIRST_MS << doublings).min(DELAY_MS_MAX)
}

/// The reason told when the provider never answered.
pub const REASON_UNAVAILABLE: &str = "provider_unavailable";

/// What one call to the provider has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The amount is held.
    Authorized {
        /// The provider's name for it.
        reference: String,
    },
    /// The provider will not hold it.
    Declined {
        /// The provider's code.
        reason: String,
    },
    /// What was asked (void, capture, refund) is done.
    Done,
    /// The provider refuses for good what was asked (void, capture, refund).
    Refused {
        /// The provider's code.
        reason: String,
    },
    /// It is not known whether it was done, or it was not: ask again.
    Unknown,
}

/// Applies an outcome of `operation`, found at try number `tries` (from 1).
///
/// `None`: the payment waits for something else by now, and the outcome is not news.
#[must_use]
pub fn apply(payment: &Payment, operation: Operation, outcome: &Outcome, tries: i32) -> Option<Transition> {
    if payment.state.operation() != Some(operation) {
        return None;
    }
    Some(match (&payment.state, outcome) {
        (_, Outcome::Unknown) if tries < TRIES_MAX => {
            Transition { payment: payment.clone(), reply: None, schedule: Schedule::Later { tries } }
        }
        (_, Outcome::Unknown) => give_up(payment, operation, REASON_UNAVAILABLE),
        (State::Authorizing, Outcome::Authorized { reference }) => {
            settled(payment, State::Authorized { reference: reference.clone() }, Reply::Authorized)
        }
        (State::Authorizing, Outcome::Declined { reason }) => {
            let reply = Reply::Declined { reason: reason.clone() };
            settled(payment, State::Declined { reason: reason.clone() }, reply)
        }
        (State::Voiding, Outcome::Done) => settled(payment, State::Voided, Reply::Voided),
        (State::GivingUp { reason }, Outcome::Done) => {
            let reply = Reply::Failed { operation: Operation::Authorize, reason: reason.clone() };
            settled(payment, State::Failed { reason: reason.clone() }, reply)
        }
        (State::Capturing { reference }, Outcome::Done) => {
            settled(payment, State::Captured { reference: reference.clone() }, Reply::Captured)
        }
        (State::Refunding { reference, amount_minor }, Outcome::Done) => {
            let state = State::Refunded { reference: reference.clone(), amount_minor: *amount_minor };
            settled(payment, state, Reply::Refunded { amount_minor: *amount_minor })
        }
        (_, Outcome::Refused { reason } | Outcome::Declined { reason }) => {
            give_up(payment, operation, reason)
        }
        // An answer to another question: the provider broke its contract.
        (_, Outcome::Authorized { .. } | Outcome::Done) => give_up(payment, operation, "provider_contract"),
    })
}

fn settled(payment: &Payment, state: State, reply: Reply) -> Transition {
    let payment = Payment { state, ..payment.clone() };
    Transition { payment, reply: Some(reply), schedule: Schedule::Never }
}

/// An authorization in doubt is voided by its key first; the others stay where they are until their command comes again.
fn give_up(payment: &Payment, operation: Operation, reason: &str) -> Transition {
    let reason = reason.to_owned();
    match payment.state {
        State::Authorizing => {
            let payment = Payment { state: State::GivingUp { reason }, ..payment.clone() };
            Transition { payment, reply: None, schedule: Schedule::Now }
        }
        // Not even the void was answered: nothing true can be told. The saga's deadline asks again.
        State::GivingUp { .. } => {
            Transition { payment: payment.clone(), reply: None, schedule: Schedule::Never }
        }
        _ => {
            let reply = Some(Reply::Failed { operation, reason });
            Transition { payment: payment.clone(), reply, schedule: Schedule::Never }
        }
    }
}
