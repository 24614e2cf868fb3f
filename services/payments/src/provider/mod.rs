//! The payment provider's contract: what payments asks, what may come back, what must hold.
//!
//! A provider keeps idempotency keys: the same call with the same key has one effect and one answer, however often and
//! in whatever order calls arrive. That is what lets the worker ask again after silence.

mod gather;
pub mod sandbox;
mod under_way;

use std::future::Future;

use crate::domain::payment::{PaymentKey, Terms};

/// What became of an authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// The amount is held.
    Approved {
        /// The provider's name for it.
        reference: String,
    },
    /// The amount is not held, and will not be.
    Declined {
        /// The provider's code.
        reason: String,
    },
}

/// Why a call has no answer that settles it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The provider did not take the call; it may be made again.
    #[error("the provider did not take the call: {why}")]
    Unavailable {
        /// What happened.
        why: String,
    },
    /// The call may or may not have had its effect: ask before deciding.
    #[error("the provider's answer was lost")]
    AnswerLost,
    /// The provider refuses for good.
    #[error("the provider refuses: {reason}")]
    Refused {
        /// The provider's code.
        reason: String,
    },
}

/// A payment provider. Every call may take as long as it likes: the worker bounds it.
pub trait Provider: Send + Sync + 'static {
    /// Holds the amount, once per key.
    fn authorize(
        &self,
        key: PaymentKey,
        terms: &Terms,
    ) -> impl Future<Output = Result<Authorization, ProviderError>> + Send;

    /// What became of the authorization of this key; `None`: never arrived.
    fn find(
        &self,
        key: PaymentKey,
    ) -> impl Future<Output = Result<Option<Authorization>, ProviderError>> + Send;

    /// Lets the amount go. By key, not by reference: an authorization that has not arrived yet is declined when it does.
    fn void(&self, key: PaymentKey) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Takes the whole held amount, once.
    fn capture(
        &self,
        key: PaymentKey,
        terms: &Terms,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Gives back `amount_minor` of what was taken, once.
    fn refund(
        &self,
        key: PaymentKey,
        amount_minor: i64,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}
