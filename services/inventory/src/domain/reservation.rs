//! The reservation of one order: a state machine whose every transition can refuse. At most one per order, for ever.

use thiserror::Error;
use waybill_events::Sku;

use super::shelf::{Lines, Shelf, ShelfError};
use super::stock::MovementKind;

/// Where an order's reservation stands. A reservation that was never heard of is no row (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    /// Set by `ReserveStock`; waits for `CommitStock` (the order is confirmed) or `ReleaseStock` (it is not).
    Reserved {
        /// What is held.
        lines: Lines,
    },
    /// Set by `ReserveStock` when the stock did not suffice. Final; nothing was ever held.
    Rejected {
        /// Why; told again to whoever asks again.
        refusal: Refusal,
    },
    /// Set by `ReleaseStock`. Final.
    Released {
        /// What was held; `None` is the tombstone of a release that came before its reserve.
        lines: Option<Lines>,
    },
    /// Set by `CommitStock`; only `RestockOrder` of a cancelled order goes on from here.
    Committed {
        /// What was shipped.
        lines: Lines,
    },
    /// Set by `RestockOrder`. Final.
    Restocked {
        /// What came back.
        lines: Lines,
    },
}

/// Why nothing is reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer pieces available than asked for.
    InsufficientStock(Sku),
    /// No such product.
    UnknownSku(Sku),
    /// The order has given its reservation back, perhaps before it asked for it, and gets no other.
    Cancelled,
}

impl Refusal {
    /// The reply's machine-readable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InsufficientStock(_) => "insufficient_stock",
            Self::UnknownSku(_) => "unknown_sku",
            Self::Cancelled => "cancelled",
        }
    }

    /// The SKU that could not be reserved, when it is about one.
    #[must_use]
    pub fn sku(&self) -> Option<&Sku> {
        match self {
            Self::InsufficientStock(sku) | Self::UnknownSku(sku) => Some(sku),
            Self::Cancelled => None,
        }
    }
}

/// What an order may ask of the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StockCommand {
    /// Hold every line, or none.
    Reserve(Lines),
    /// Give back what is held; hold nothing later.
    Release,
    /// What is held is shipped.
    Commit,
    /// What was shipped is back.
    Restock,
}

impl StockCommand {
    /// The command's message name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reserve(_) => "ReserveStock",
            Self::Release => "ReleaseStock",
            Self::Commit => "CommitStock",
            Self::Restock => "RestockOrder",
        }
    }
}

/// What the order is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Every line is held.
    Reserved,
    /// Nothing is held.
    Rejected(Refusal),
    /// Nothing is held any more, nor will be.
    Released,
    /// What was held is shipped.
    Committed,
    /// What was shipped is available again.
    Restocked,
}

/// One step of a reservation. Without a movement it is a stored reply told again (or a refusal, or a tombstone).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The state from now on.
    pub next: Reservation,
    /// How the lines of `next` move.
    pub movement: Option<MovementKind>,
    /// What to tell the order.
    pub reply: Reply,
}

/// A command that must not be obeyed and has no reply: somebody has to look at it (a dead letter).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Breach {
    /// The command does not follow from the reservation's state.
    #[error("{command} needs a reservation that is {needs}, but this order's {is}")]
    OutOfTurn {
        /// What was asked.
        command: &'static str,
        /// The states it may follow.
        needs: &'static str,
        /// The state found.
        is: &'static str,
    },
    /// A second `ReserveStock` of the order asks for something else than the first.
    #[error("ReserveStock asks for other lines than this order has reserved already")]
    OtherLines,
    /// Rows contradict each other.
    #[error("the stock rows and the reservation contradict each other")]
    Shelf(#[from] ShelfError),
}

impl Breach {
    /// The dead letter's class.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::OutOfTurn { .. } => "out_of_turn",
            Self::OtherLines => "conflicting_command",
            Self::Shelf(_) => "stock_contradiction",
        }
    }
}

impl Reservation {
    /// What the command makes of the order's reservation.
    ///
    /// # Errors
    /// [`Breach`] when the command may not follow this state. The shelf is only looked at; see
    /// [`super::wave::Wave::obey`] for who moves the pieces.
    pub fn after(
        current: Option<&Self>,
        command: &StockCommand,
        shelf: &Shelf,
    ) -> Result<Transition, Breach> {
        match command {
            StockCommand::Reserve(lines) => Self::reserve(current, lines, shelf),
            StockCommand::Release => Self::release(current),
            StockCommand::Commit => Self::commit(current),
            StockCommand::Restock => Self::restock(current),
        }
    }

    fn reserve(current: Option<&Self>, lines: &Lines, shelf: &Shelf) -> Result<Transition, Breach> {
        match current {
            None => Ok(match shelf.refusal(lines) {
                None => {
                    moved(Self::Reserved { lines: lines.clone() }, MovementKind::Reserve, Reply::Reserved)
                }
                Some(refusal) => {
                    again(&Self::Rejected { refusal: refusal.clone() }, Reply::Rejected(refusal))
                }
            }),
            Some(Self::Reserved { lines: held } | Self::Committed { lines: held }) if held != lines => {
                Err(Breach::OtherLines)
            }
            Some(state @ (Self::Reserved { .. } | Self::Committed { .. })) => {
                Ok(again(state, Reply::Reserved))
            }
            Some(state @ Self::Rejected { refusal }) => Ok(again(state, Reply::Rejected(refusal.clone()))),
            // The stored reply may have been "reserved", but that is over: only the refusal is still true.
            Some(state @ (Self::Released { .. } | Self::Restocked { .. })) => {
                Ok(again(state, Reply::Rejected(Refusal::Cancelled)))
            }
        }
    }

    fn release(current: Option<&Self>) -> Result<Transition, Breach> {
        match current {
            None => Ok(again(&Self::Released { lines: None }, Reply::Released)),
            Some(Self::Reserved { lines }) => {
                let next = Self::Released { lines: Some(lines.clone()) };
                Ok(moved(next, MovementKind::Release, Reply::Released))
            }
            Some(state @ (Self::Rejected { .. } | Self::Released { .. })) => {
                Ok(again(state, Reply::Released))
            }
            Some(state @ (Self::Committed { .. } | Self::Restocked { .. })) => {
                Err(state.out_of_turn("ReleaseStock", "not shipped yet"))
            }
        }
    }

    fn commit(current: Option<&Self>) -> Result<Transition, Breach> {
        match current {
            Some(Self::Reserved { lines }) => {
                Ok(moved(Self::Committed { lines: lines.clone() }, MovementKind::Commit, Reply::Committed))
            }
            Some(state @ (Self::Committed { .. } | Self::Restocked { .. })) => {
                Ok(again(state, Reply::Committed))
            }
            Some(state @ (Self::Rejected { .. } | Self::Released { .. })) => {
                Err(state.out_of_turn("CommitStock", "reserved"))
            }
            None => Err(unheard_of("CommitStock", "reserved")),
        }
    }

    fn restock(current: Option<&Self>) -> Result<Transition, Breach> {
        match current {
            Some(Self::Committed { lines }) => {
                Ok(moved(Self::Restocked { lines: lines.clone() }, MovementKind::Restock, Reply::Restocked))
            }
            Some(state @ Self::Restocked { .. }) => Ok(again(state, Reply::Restocked)),
            // The cancel-order saga starts when the place-order saga has ended, so the pieces are shipped by then.
            Some(state @ (Self::Reserved { .. } | Self::Rejected { .. } | Self::Released { .. })) => {
                Err(state.out_of_turn("RestockOrder", "shipped"))
            }
            None => Err(unheard_of("RestockOrder", "shipped")),
        }
    }

    /// The pieces it is about, when it ever held any.
    #[must_use]
    pub fn lines(&self) -> Option<&Lines> {
        match self {
            Self::Reserved { lines } | Self::Committed { lines } | Self::Restocked { lines } => Some(lines),
            Self::Released { lines } => lines.as_ref(),
            Self::Rejected { .. } => None,
        }
    }

    /// The row's word for the state.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::Reserved { .. } => "reserved",
            Self::Rejected { .. } => "rejected",
            Self::Released { .. } => "released",
            Self::Committed { .. } => "committed",
            Self::Restocked { .. } => "restocked",
        }
    }

    fn out_of_turn(&self, command: &'static str, needs: &'static str) -> Breach {
        let is = match self {
            Self::Reserved { .. } => "is reserved",
            Self::Rejected { .. } => "was rejected",
            Self::Released { .. } => "was released",
            Self::Committed { .. } => "is shipped",
            Self::Restocked { .. } => "is shipped and restocked",
        };
        Breach::OutOfTurn { command, needs, is }
    }
}

fn unheard_of(command: &'static str, needs: &'static str) -> Breach {
    Breach::OutOfTurn { command, needs, is: "does not exist" }
}

fn moved(next: Reservation, kind: MovementKind, reply: Reply) -> Transition {
    Transition { next, movement: Some(kind), reply }
}

fn again(state: &Reservation, reply: Reply) -> Transition {
    Transition { next: state.clone(), movement: None, reply }
}
