//! What a command does to a payment: act, tell the stored reply again, or refuse.

use thiserror::Error;

use super::payment::{Operation, Payment, PaymentKey, Reply, Schedule, State, Terms, Transition};

/// What an order may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentCommand {
    /// Hold the amount.
    Authorize(Terms),
    /// Let it go; hold nothing later.
    Void,
    /// Take what is held.
    Capture,
    /// Give back what was taken.
    Refund {
        /// How much, in minor units.
        amount_minor: i64,
    },
}

impl PaymentCommand {
    /// The command's message name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Authorize(_) => "AuthorizePayment",
            Self::Void => "VoidPayment",
            Self::Capture => "CapturePayment",
            Self::Refund { .. } => "RefundPayment",
        }
    }
}

/// The refusal's reason when a void came first.
pub const REASON_VOIDED: &str = "voided";

/// A command that must not be obeyed and has no reply: somebody has to look at it (a dead letter).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Breach {
    /// The command does not follow from the payment's state.
    #[error("{command} needs a payment that is {needs}, but payment {key} is {is}")]
    OutOfTurn {
        /// What was asked.
        command: &'static str,
        /// Which payment.
        key: PaymentKey,
        /// The states it may follow.
        needs: &'static str,
        /// The state found.
        is: &'static str,
    },
    /// The same payment, other terms.
    #[error("AuthorizePayment for payment {0} has other terms than the first one had")]
    OtherTerms(PaymentKey),
    /// More than was taken, or nothing.
    #[error("RefundPayment of {asked} minor units does not fit the {captured} that payment {key} has taken")]
    RefundAmount {
        /// Which payment.
        key: PaymentKey,
        /// What was asked.
        asked: i64,
        /// What was captured.
        captured: i64,
    },
}

impl Breach {
    /// The dead letter's class.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::OutOfTurn { .. } => "out_of_turn",
            Self::OtherTerms(_) => "conflicting_command",
            Self::RefundAmount { .. } => "refund_amount",
        }
    }
}

/// Obeys one command. `now` is the payment as it is kept; `None`: never heard of.
///
/// A repeated command (whatever its message id) changes nothing and is told the stored reply again; while the provider
/// is being asked there is no reply yet, and a given-up try begins again.
///
/// # Errors
/// [`Breach`] when the command does not follow from the state.
pub fn obey(key: PaymentKey, now: Option<&Payment>, command: &PaymentCommand) -> Result<Transition, Breach> {
    match command {
        PaymentCommand::Authorize(terms) => authorize(key, now, terms),
        PaymentCommand::Void => void(key, now),
        PaymentCommand::Capture => capture(key, now),
        PaymentCommand::Refund { amount_minor } => refund(key, now, *amount_minor),
    }
}

fn authorize(key: PaymentKey, now: Option<&Payment>, terms: &Terms) -> Result<Transition, Breach> {
    let Some(now) = now else {
        let payment = Payment { key, terms: Some(terms.clone()), state: State::Authorizing };
        return Ok(begin(payment));
    };
    if now.terms.as_ref().is_some_and(|known| known != terms) {
        return Err(Breach::OtherTerms(key));
    }
    let declined = |reason: &str| Reply::Declined { reason: reason.to_owned() };
    Ok(match &now.state {
        State::Authorizing | State::GivingUp { .. } => ask_again(now),
        State::Declined { reason } => told_again(now, declined(reason)),
        State::Failed { reason } => {
            let reply = Reply::Failed { operation: Operation::Authorize, reason: reason.clone() };
            told_again(now, reply)
        }
        State::Voiding | State::Voided => told_again(now, declined(REASON_VOIDED)),
        State::Authorized { .. }
        | State::Capturing { .. }
        | State::Captured { .. }
        | State::Refunding { .. }
        | State::Refunded { .. } => told_again(now, Reply::Authorized),
    })
}

fn void(key: PaymentKey, now: Option<&Payment>) -> Result<Transition, Breach> {
    let Some(now) = now else {
        // The tombstone: an authorization that comes later finds it and is declined.
        let payment = Payment { key, terms: None, state: State::Voided };
        return Ok(Transition { payment, reply: Some(Reply::Voided), schedule: Schedule::Never });
    };
    match &now.state {
        State::Authorizing | State::Authorized { .. } | State::GivingUp { .. } => {
            Ok(begin(Payment { state: State::Voiding, ..now.clone() }))
        }
        State::Voiding => Ok(ask_again(now)),
        // Nothing is held: there is nobody to tell but the order.
        State::Declined { .. } | State::Failed { .. } | State::Voided => {
            let payment = Payment { state: State::Voided, ..now.clone() };
            Ok(Transition { payment, reply: Some(Reply::Voided), schedule: Schedule::Never })
        }
        state => Err(out_of_turn("VoidPayment", key, "not captured", state)),
    }
}

fn capture(key: PaymentKey, now: Option<&Payment>) -> Result<Transition, Breach> {
    const NEEDS: &str = "authorized";
    let Some(now) = now else { return Err(unknown("CapturePayment", key, NEEDS)) };
    match &now.state {
        State::Authorized { reference } => {
            let state = State::Capturing { reference: reference.clone() };
            Ok(begin(Payment { state, ..now.clone() }))
        }
        State::Capturing { .. } => Ok(ask_again(now)),
        State::Captured { .. } | State::Refunding { .. } | State::Refunded { .. } => {
            Ok(told_again(now, Reply::Captured))
        }
        state => Err(out_of_turn("CapturePayment", key, NEEDS, state)),
    }
}

fn refund(key: PaymentKey, now: Option<&Payment>, amount_minor: i64) -> Result<Transition, Breach> {
    const NEEDS: &str = "captured";
    let Some(now) = now else { return Err(unknown("RefundPayment", key, NEEDS)) };
    let captured = now.terms.as_ref().map_or(0, |terms| terms.amount_minor);
    let fits = |known: i64| {
        if known == amount_minor && amount_minor > 0 && amount_minor <= captured {
            return Ok(());
        }
        Err(Breach::RefundAmount { key, asked: amount_minor, captured })
    };
    match &now.state {
        State::Captured { reference } => {
            fits(amount_minor)?;
            let state = State::Refunding { reference: reference.clone(), amount_minor };
            Ok(begin(Payment { state, ..now.clone() }))
        }
        // One refund a payment: the same one again is told again, another one is refused.
        State::Refunding { amount_minor: known, .. } => fits(*known).map(|()| ask_again(now)),
        State::Refunded { amount_minor: known, .. } => {
            fits(*known).map(|()| told_again(now, Reply::Refunded { amount_minor }))
        }
        state => Err(out_of_turn("RefundPayment", key, NEEDS, state)),
    }
}

fn begin(payment: Payment) -> Transition {
    Transition { payment, reply: None, schedule: Schedule::Now }
}

/// The reply comes when the provider has answered; a try that was given up begins again.
fn ask_again(now: &Payment) -> Transition {
    Transition { payment: now.clone(), reply: None, schedule: Schedule::Resume }
}

fn told_again(now: &Payment, reply: Reply) -> Transition {
    Transition { payment: now.clone(), reply: Some(reply), schedule: Schedule::Unchanged }
}

fn out_of_turn(command: &'static str, key: PaymentKey, needs: &'static str, state: &State) -> Breach {
    Breach::OutOfTurn { command, key, needs, is: state.name() }
}

fn unknown(command: &'static str, key: PaymentKey, needs: &'static str) -> Breach {
    Breach::OutOfTurn { command, key, needs, is: "unknown" }
}
