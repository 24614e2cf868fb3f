//! The order as a state machine: which changes it allows, and the one event that each change makes.

use chrono::{DateTime, Utc};
use waybill_events::{Currency, CustomerId, OrderId};

use super::pricing::PricedLine;
use super::reason::Reason;

/// Where an order stands. Each variant says who sets it and who ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Set when the order is placed; the place-order saga ends it, or the customer's cancel.
    Pending,
    /// Set by the saga's pivot: the order will be delivered. Only a cancel ends it.
    Confirmed,
    /// Set when the saga had to go back: nothing is reserved, nothing is owed. Final.
    Rejected {
        /// The refusal that turned the saga.
        reason: Reason,
    },
    /// Set by a cancel; ended when the saga at work (backwards before the pivot, else cancel-order) has ended.
    Cancelling {
        /// Who asked for it.
        reason: Reason,
    },
    /// Stock and money are back where they were. Final.
    Cancelled {
        /// Who asked for it.
        reason: Reason,
    },
}

impl State {
    /// The status as customers and the database see it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Pending => Status::Pending,
            Self::Confirmed => Status::Confirmed,
            Self::Rejected { .. } => Status::Rejected,
            Self::Cancelling { .. } => Status::Cancelling,
            Self::Cancelled { .. } => Status::Cancelled,
        }
    }

    /// The reason, in the states that have one.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Pending | Self::Confirmed => None,
            Self::Rejected { reason } | Self::Cancelling { reason } | Self::Cancelled { reason } => {
                Some(reason)
            }
        }
    }

    /// The state of a stored status and reason; `None` when the two do not belong together.
    #[must_use]
    pub fn of(status: Status, reason: Option<Reason>) -> Option<Self> {
        Some(match (status, reason) {
            (Status::Pending, None) => Self::Pending,
            (Status::Confirmed, None) => Self::Confirmed,
            (Status::Rejected, Some(reason)) => Self::Rejected { reason },
            (Status::Cancelling, Some(reason)) => Self::Cancelling { reason },
            (Status::Cancelled, Some(reason)) => Self::Cancelled { reason },
            _ => return None,
        })
    }
}

/// The name of a [`State`], without what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// See [`State::Pending`].
    Pending,
    /// See [`State::Confirmed`].
    Confirmed,
    /// See [`State::Rejected`].
    Rejected,
    /// See [`State::Cancelling`].
    Cancelling,
    /// See [`State::Cancelled`].
    Cancelled,
}

impl Status {
    /// Every status, in the order of an order's life.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Confirmed, Self::Rejected, Self::Cancelling, Self::Cancelled];

    /// The word in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Rejected => "REJECTED",
            Self::Cancelling => "CANCELLING",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The status of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// An order without its lines: all that changes after it was placed, and what its events need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which order.
    pub id: OrderId,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// Where it stands.
    pub state: State,
    /// Currency of every amount of the order.
    pub currency: Currency,
    /// Sum over the lines, in minor units; more than zero.
    pub total_minor: i64,
    /// How many events it has made: `ce_sequence` of the last one.
    pub version: i64,
    /// When it was placed; informative.
    pub created_at: DateTime<Utc>,
    /// When it last changed; informative.
    pub updated_at: DateTime<Utc>,
}

/// An order with what was ordered; the lines never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedOrder {
    /// All but the lines.
    pub order: Order,
    /// In the customer's order; each SKU once, at least one line.
    pub lines: Vec<PricedLine>,
}

/// What a change of a placed order tells the world, besides what the order itself knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent {
    /// The pivot.
    Confirmed,
    /// The end of an order that was never confirmed.
    Rejected {
        /// Why.
        reason: Reason,
    },
    /// The order is being taken back.
    CancellationRequested,
    /// The end of an order that was taken back.
    Cancelled {
        /// Who asked for it.
        reason: Reason,
    },
}

/// A change that the order's state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an order that is {} can not be {change}", .status.as_str())]
pub struct Refused {
    /// Where the order stands.
    pub status: Status,
    /// The change, as a past participle.
    pub change: &'static str,
}

impl Order {
    /// A new order, pending, version 1.
    #[must_use]
    pub fn placed(
        id: OrderId,
        customer_id: CustomerId,
        currency: Currency,
        total_minor: i64,
        now: DateTime<Utc>,
    ) -> Self {
        let state = State::Pending;
        Self { id, customer_id, state, currency, total_minor, version: 1, created_at: now, updated_at: now }
    }

    /// The saga reached its pivot.
    ///
    /// # Errors
    /// [`Refused`] unless the order is pending: a cancel turns the saga, so no pivot can follow one.
    pub fn confirm(&mut self, now: DateTime<Utc>) -> Result<OrderEvent, Refused> {
        match self.state {
            State::Pending => Ok(self.change(State::Confirmed, OrderEvent::Confirmed, now)),
            _ => Err(self.refuse("confirmed")),
        }
    }

    /// The place-order saga has gone all the way back. The order's own state tells what that means: a pending order
    /// is rejected for the saga's reason; one that is being cancelled is cancelled for its own, whichever of the two
    /// turned the saga first.
    ///
    /// # Errors
    /// [`Refused`] in any other state.
    pub fn taken_back(&mut self, why: Reason, now: DateTime<Utc>) -> Result<OrderEvent, Refused> {
        match &self.state {
            State::Pending => {
                let event = OrderEvent::Rejected { reason: why.clone() };
                Ok(self.change(State::Rejected { reason: why }, event, now))
            }
            State::Cancelling { .. } => self.cancelled(now),
            _ => Err(self.refuse("taken back")),
        }
    }

    /// Asks for the order to be cancelled; `None` when that was done before.
    ///
    /// # Errors
    /// [`Refused`] when the order was rejected: there is nothing to cancel, and its reason must stay readable.
    pub fn request_cancellation(
        &mut self,
        who: Reason,
        now: DateTime<Utc>,
    ) -> Result<Option<OrderEvent>, Refused> {
        match self.state {
            State::Pending | State::Confirmed => {
                let cancelling = State::Cancelling { reason: who };
                Ok(Some(self.change(cancelling, OrderEvent::CancellationRequested, now)))
            }
            State::Cancelling { .. } | State::Cancelled { .. } => Ok(None),
            State::Rejected { .. } => Err(self.refuse("cancelled")),
        }
    }

    /// Everything done for the order is taken back.
    ///
    /// # Errors
    /// [`Refused`] unless it is being cancelled.
    pub fn cancelled(&mut self, now: DateTime<Utc>) -> Result<OrderEvent, Refused> {
        match &self.state {
            State::Cancelling { reason } => {
                let reason = reason.clone();
                let event = OrderEvent::Cancelled { reason: reason.clone() };
                Ok(self.change(State::Cancelled { reason }, event, now))
            }
            _ => Err(self.refuse("cancelled")),
        }
    }

    fn change(&mut self, state: State, event: OrderEvent, now: DateTime<Utc>) -> OrderEvent {
        self.state = state;
        self.version += 1;
        self.updated_at = now;
        event
    }

    fn refuse(&self, change: &'static str) -> Refused {
        Refused { status: self.state.status(), change }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn pending() -> Order {
        let (id, customer) = (OrderId::from(Uuid::from_u128(1)), CustomerId::from(Uuid::from_u128(2)));
        Order::placed(id, customer, "EUR".parse().unwrap(), 100, DateTime::UNIX_EPOCH)
    }

    fn apply(order: &mut Order, change: u8) -> Result<Option<OrderEvent>, Refused> {
        let now = DateTime::UNIX_EPOCH;
        match change {
            0 => order.confirm(now).map(Some),
            1 => order.taken_back(Reason::new("insufficient_stock"), now).map(Some),
            2 => order.request_cancellation(Reason::new(Reason::CANCELLED_BY_CUSTOMER), now),
            _ => order.cancelled(now).map(Some),
        }
    }

    proptest! {
        /// Whatever is asked in whatever order: one event per version, refusals change nothing, ends are final.
        #[test]
        fn every_change_is_one_version_and_one_event(changes in prop::collection::vec(0_u8..4, 0..12)) {
            let mut order = pending();
            for change in changes {
                let before = order.clone();
                match apply(&mut order, change) {
                    Ok(Some(_)) => prop_assert_eq!(order.version, before.version + 1),
                    Ok(None) | Err(_) => prop_assert_eq!(&order, &before),
                }
                if matches!(before.state, State::Rejected { .. } | State::Cancelled { .. }) {
                    prop_assert_eq!(&order, &before);
                }
                let stored = State::of(order.state.status(), order.state.reason().cloned());
                prop_assert_eq!(stored, Some(order.state.clone()));
            }
        }
    }

    #[test]
    fn a_cancel_keeps_its_own_reason_when_the_saga_was_turned_by_another() {
        let (mut order, now) = (pending(), DateTime::UNIX_EPOCH);
        order.request_cancellation(Reason::new(Reason::CANCELLED_BY_CUSTOMER), now).unwrap();
        order.taken_back(Reason::new("payment_declined"), now).unwrap();
        let reason = Reason::new(Reason::CANCELLED_BY_CUSTOMER);
        assert_eq!(order.state, State::Cancelled { reason });
        assert_eq!(order.version, 3);
    }

    #[test]
    fn a_cancelled_order_is_never_confirmed() {
        let (mut order, now) = (pending(), DateTime::UNIX_EPOCH);
        order.request_cancellation(Reason::new(Reason::CANCELLED_BY_CUSTOMER), now).unwrap();
        let refused = order.confirm(now).unwrap_err();
        assert_eq!(refused.to_string(), "an order that is CANCELLING can not be confirmed");
    }

    #[test]
    fn a_rejected_order_can_not_be_cancelled_and_keeps_its_reason() {
        let (mut order, now) = (pending(), DateTime::UNIX_EPOCH);
        order.taken_back(Reason::new("insufficient_stock"), now).unwrap();
        assert!(order.request_cancellation(Reason::new(Reason::CANCELLED_BY_CUSTOMER), now).is_err());
        assert_eq!(order.state.reason().unwrap().as_str(), "insufficient_stock");
    }

    #[test]
    fn every_status_is_read_back_from_its_word() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("pending"), None);
    }
}
