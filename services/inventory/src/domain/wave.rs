//! A wave of commands decided in memory, in arrival order, against locked rows; what comes out is written set-wise.

use std::collections::{BTreeSet, HashMap};

use waybill_events::{OrderId, Sku};

use super::reservation::{Breach, Reply, Reservation, StockCommand};
use super::shelf::{LevelsChange, Shelf};
use super::stock::{MovementKind, Pieces};

/// A reservation and how many replies it has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// 1..n, one per reply: the reply's `ce_sequence`.
    pub version: i64,
    /// The state.
    pub reservation: Reservation,
}

/// What to tell an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The reply's `ce_sequence` among the replies to this order.
    pub version: i64,
    /// The reply.
    pub reply: Reply,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Whose.
    pub order_id: OrderId,
    /// Of what.
    pub sku: Sku,
    /// From where to where.
    pub kind: MovementKind,
    /// How many.
    pub pieces: Pieces,
}

/// What a wave wants written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Reservations with their new versions, each order once.
    pub reservations: Vec<(OrderId, Numbered)>,
    /// Differences of levels, each SKU once, sorted.
    pub levels: Vec<LevelsChange>,
    /// New lines of the ledger, in the order they happened.
    pub movements: Vec<Movement>,
}

/// The SKUs a wave must lock before it decides: of the lines asked for by orders without a reservation, and of the
/// reservations that exist. Sorted: everybody locks in the same order, so nobody deadlocks.
#[must_use]
pub fn skus_needed(
    commands: &[(OrderId, StockCommand)],
    reservations: &HashMap<OrderId, Numbered>,
) -> BTreeSet<Sku> {
    let mut skus = BTreeSet::new();
    for (order_id, command) in commands {
        let held = reservations.get(order_id).map(|found| found.reservation.lines());
        let lines = match (held, command) {
            (Some(held), _) => held,
            (None, StockCommand::Reserve(lines)) => Some(lines),
            (None, _) => None,
        };
        skus.extend(lines.into_iter().flat_map(|lines| lines.iter()).map(|line| line.sku.clone()));
    }
    skus
}

/// The rows a wave has locked, and what it has changed of them so far.
#[derive(Debug, Default)]
pub struct Wave {
    reservations: HashMap<OrderId, Numbered>,
    shelf: Shelf,
    touched: Vec<OrderId>,
    movements: Vec<Movement>,
}

impl Wave {
    /// Starts from the loaded rows. `shelf` has every SKU of [`skus_needed`] that exists.
    #[must_use]
    pub fn new(reservations: HashMap<OrderId, Numbered>, shelf: Shelf) -> Self {
        Self { reservations, shelf, touched: Vec::new(), movements: Vec::new() }
    }

    /// Obeys one command.
    ///
    /// # Errors
    /// [`Breach`]: nothing changed, nothing is told.
    pub fn obey(&mut self, order_id: OrderId, command: &StockCommand) -> Result<Answer, Breach> {
        let current = self.reservations.get(&order_id);
        let version = current.map_or(0, |found| found.version) + 1;
        let step = Reservation::after(current.map(|found| &found.reservation), command, &self.shelf)?;
        if let (Some(kind), Some(lines)) = (step.movement, step.next.lines()) {
            self.shelf.apply(kind, lines)?;
            self.movements.extend(lines.iter().map(|line| Movement {
                order_id,
                sku: line.sku.clone(),
                kind,
                pieces: line.pieces,
            }));
        }
        self.reservations.insert(order_id, Numbered { version, reservation: step.next });
        self.touched.push(order_id);
        Ok(Answer { version, reply: step.reply })
    }

    /// What has to be written.
    #[must_use]
    pub fn into_changes(mut self) -> Changes {
        let touched = std::mem::take(&mut self.touched);
        // Removing as we go keeps the first mention of an order that was touched twice, with its last state.
        let reservations = touched.into_iter().filter_map(|id| Some((id, self.reservations.remove(&id)?)));
        Changes {
            reservations: reservations.collect(),
            levels: self.shelf.changes(),
            movements: self.movements,
        }
    }
}
