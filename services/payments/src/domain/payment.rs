//! One payment of an order: what is known of it, and what it may still become.

use std::fmt;

use waybill_events::{Currency, CustomerId, OrderId};

/// Names a payment for ever: the natural key, and the provider's idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentKey {
    /// The order.
    pub order_id: OrderId,
    /// Which payment of the order, from 1 up.
    pub attempt: i32,
}

impl fmt::Display for PaymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.order_id, self.attempt)
    }
}

/// What is to be paid, and with what. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who pays.
    pub customer_id: CustomerId,
    /// Minor units, more than zero.
    pub amount_minor: i64,
    /// Of the amount.
    pub currency: Currency,
    /// The provider's name for the means of payment.
    pub token: String,
}

/// Where a payment stands. A payment that was never heard of is no row (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Set by `AuthorizePayment`; the worker asks the provider.
    Authorizing,
    /// Set by the provider's approval; waits for `CapturePayment` or `VoidPayment`.
    Authorized {
        /// The provider's name for the held amount.
        reference: String,
    },
    /// Set by the provider's refusal. Nothing is held.
    Declined {
        /// The provider's code.
        reason: String,
    },
    /// Set when the provider would not say what became of the authorization: the worker voids it by its key, so that
    /// "failed" is told only when nothing is held and nothing will be.
    GivingUp {
        /// Why it was given up.
        reason: String,
    },
    /// Set when giving up is done. Nothing is held.
    Failed {
        /// Why it was given up.
        reason: String,
    },
    /// Set by `VoidPayment`; the worker tells the provider.
    Voiding,
    /// Set when the provider has let go; also the tombstone of a void that came first. Final.
    Voided,
    /// Set by `CapturePayment`; the worker tells the provider until it is done.
    Capturing {
        /// What is held.
        reference: String,
    },
    /// Set when the provider has taken the amount; waits for `RefundPayment`, if ever.
    Captured {
        /// What was held.
        reference: String,
    },
    /// Set by `RefundPayment`; the worker tells the provider until it is done.
    Refunding {
        /// What was taken.
        reference: String,
        /// How much goes back.
        amount_minor: i64,
    },
    /// Set when the provider has given the amount back. Final.
    Refunded {
        /// What was taken.
        reference: String,
        /// How much went back.
        amount_minor: i64,
    },
}

/// What the worker has to ask of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Hold the amount.
    Authorize,
    /// Let it go.
    Void,
    /// Take it.
    Capture,
    /// Give it back.
    Refund,
}

impl Operation {
    /// As `PaymentFailed.operation` and metrics say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Void => "void",
            Self::Capture => "capture",
            Self::Refund => "refund",
        }
    }
}

impl State {
    /// The state's name in the table, the API and error texts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Authorizing => "authorizing",
            Self::Authorized { .. } => "authorized",
            Self::Declined { .. } => "declined",
            Self::GivingUp { .. } => "giving_up",
            Self::Failed { .. } => "failed",
            Self::Voiding => "voiding",
            Self::Voided => "voided",
            Self::Capturing { .. } => "capturing",
            Self::Captured { .. } => "captured",
            Self::Refunding { .. } => "refunding",
            Self::Refunded { .. } => "refunded",
        }
    }

    /// What the provider is to be asked in this state; `None`: nothing.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::Authorizing => Some(Operation::Authorize),
            Self::GivingUp { .. } | Self::Voiding => Some(Operation::Void),
            Self::Capturing { .. } => Some(Operation::Capture),
            Self::Refunding { .. } => Some(Operation::Refund),
            _ => None,
        }
    }
}

/// A payment as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its name.
    pub key: PaymentKey,
    /// `None` in the tombstone of a void that came before its authorization.
    pub terms: Option<Terms>,
    /// Where it stands.
    pub state: State,
}

/// What the order is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The amount is held.
    Authorized,
    /// Nothing is held.
    Declined {
        /// Machine-readable.
        reason: String,
    },
    /// Nothing is held any more, nor will be.
    Voided,
    /// The amount is taken.
    Captured,
    /// The amount is given back.
    Refunded {
        /// How much, in minor units.
        amount_minor: i64,
    },
    /// Given up: for an authorization, nothing is held; for the others, the command may come again.
    Failed {
        /// Which operation.
        operation: Operation,
        /// Machine-readable.
        reason: String,
    },
}

/// When the provider is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Leave it as it is.
    Unchanged,
    /// At once, as the first try.
    Now,
    /// At once when it was given up; else leave it as it is.
    Resume,
    /// After the back-off of this many tries.
    Later {
        /// Tries made so far.
        tries: i32,
    },
    /// Not any more, until a command comes.
    Never,
}

/// One step of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The payment from now on.
    pub payment: Payment,
    /// What to tell the order now.
    pub reply: Option<Reply>,
    /// When to ask the provider.
    pub schedule: Schedule,
}
