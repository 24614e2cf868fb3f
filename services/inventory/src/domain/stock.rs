//! How many pieces of a SKU are where, and the movements between: nothing appears, nothing vanishes.

use thiserror::Error;
use uuid::Uuid;
use waybill_events::Sku;

use super::value::{ValueError, in_range};

/// One receipt: more than any lorry brings, so a typing error shows.
pub const RECEIPT_PIECES_MAX: i64 = 1_000_000_000;

/// Pieces of one SKU on the shelves (available and reserved): an order's quantity is a 32-bit integer, so is this.
pub const ON_HAND_PIECES_MAX: i64 = i32::MAX as i64;

/// A number of pieces to move, 1 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pieces(i32);

impl Pieces {
    /// Pieces of an order's line.
    ///
    /// # Errors
    /// Zero or negative.
    pub fn ordered(quantity: i32) -> Result<Self, ValueError> {
        in_range(i64::from(quantity), 1, i64::from(i32::MAX))?;
        Ok(Self(quantity))
    }

    /// Pieces of a receipt.
    ///
    /// # Errors
    /// Zero, negative, or above [`RECEIPT_PIECES_MAX`].
    pub fn received(quantity: i64) -> Result<Self, ValueError> {
        let quantity = in_range(quantity, 1, RECEIPT_PIECES_MAX)?;
        i32::try_from(quantity).map(Self).map_err(|_| ValueError::TooLarge { most: RECEIPT_PIECES_MAX })
    }

    /// The number, as messages and rows hold it.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

/// One receipt of pieces: the natural key of its ledger row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReceiptId(pub Uuid);

/// Pieces of one SKU asked for by an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub sku: Sku,
    /// How many.
    pub pieces: Pieces,
}

/// A movement of pieces; the ledger has one row per order (or receipt), SKU and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MovementKind {
    /// From outside to available.
    Receive,
    /// Available to reserved.
    Reserve,
    /// Reserved back to available.
    Release,
    /// Reserved to shipped.
    Commit,
    /// Shipped back to available.
    Restock,
}

impl MovementKind {
    /// The ledger's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Reserve => "reserve",
            Self::Release => "release",
            Self::Commit => "commit",
            Self::Restock => "restock",
        }
    }

    /// What one piece changes: (available, reserved, shipped).
    fn signs(self) -> (i64, i64, i64) {
        match self {
            Self::Receive => (1, 0, 0),
            Self::Reserve => (-1, 1, 0),
            Self::Release => (1, -1, 0),
            Self::Commit => (0, -1, 1),
            Self::Restock => (1, 0, -1),
        }
    }
}

/// Where the pieces of one SKU are. No number is ever negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Free for new orders.
    pub available: i64,
    /// Promised to orders that are not yet confirmed.
    pub reserved: i64,
    /// Gone with confirmed orders.
    pub shipped: i64,
}

/// A movement the levels can not make. The levels stay as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LevelsError {
    /// Fewer pieces than the movement takes.
    #[error("{kind:?} of {pieces} pieces finds too few: {available} available, {reserved} reserved, {shipped} shipped", kind = .kind, pieces = .pieces, available = .at.available, reserved = .at.reserved, shipped = .at.shipped)]
    TooFew {
        /// The movement.
        kind: MovementKind,
        /// How many it moves.
        pieces: i32,
        /// The levels that refuse.
        at: Levels,
    },
    /// The shelf would hold more than [`ON_HAND_PIECES_MAX`].
    #[error(
        "{on_hand} pieces are on hand already; {pieces} more would pass the limit of {ON_HAND_PIECES_MAX}"
    )]
    TooMany {
        /// Available and reserved before.
        on_hand: i64,
        /// How many it would add.
        pieces: i32,
    },
}

impl Levels {
    /// The levels after the movement.
    ///
    /// # Errors
    /// [`LevelsError`]: a number would turn negative, or a receipt passes the limit. A restock is never refused for
    /// being too many: the pieces are back, whatever we think of it.
    pub fn after(self, kind: MovementKind, pieces: Pieces) -> Result<Self, LevelsError> {
        let on_hand = self.available.saturating_add(self.reserved);
        let number = i64::from(pieces.get());
        if kind == MovementKind::Receive && on_hand.saturating_add(number) > ON_HAND_PIECES_MAX {
            return Err(LevelsError::TooMany { on_hand, pieces: pieces.get() });
        }
        let (available, reserved, shipped) = kind.signs();
        // Saturation is out of reach (levels are counted in i64 and fed by bounded receipts) and would show as a
        // difference to the ledger, never as a negative number.
        let next = Self {
            available: self.available.saturating_add(available * number),
            reserved: self.reserved.saturating_add(reserved * number),
            shipped: self.shipped.saturating_add(shipped * number),
        };
        if next.available < 0 || next.reserved < 0 || next.shipped < 0 {
            return Err(LevelsError::TooFew { kind, pieces: pieces.get(), at: self });
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_goes_its_way_and_none_is_lost() {
        let two = Pieces::ordered(2).unwrap();
        let start = Levels { available: 3, reserved: 0, shipped: 0 };
        let reserved = start.after(MovementKind::Reserve, two).unwrap();
        assert_eq!(reserved, Levels { available: 1, reserved: 2, shipped: 0 });
        assert_eq!(reserved.after(MovementKind::Release, two).unwrap(), start);
        let shipped = reserved.after(MovementKind::Commit, two).unwrap();
        assert_eq!(shipped, Levels { available: 1, reserved: 0, shipped: 2 });
        assert_eq!(shipped.after(MovementKind::Restock, two).unwrap(), start);
        assert!(matches!(reserved.after(MovementKind::Reserve, two), Err(LevelsError::TooFew { .. })));
    }

    #[test]
    fn a_receipt_stops_at_the_limit() {
        let billion = Pieces::received(RECEIPT_PIECES_MAX).unwrap();
        let two = Levels::default().after(MovementKind::Receive, billion).unwrap();
        let two = two.after(MovementKind::Receive, billion).unwrap();
        assert!(matches!(two.after(MovementKind::Receive, billion), Err(LevelsError::TooMany { .. })));
        assert_eq!(Pieces::received(0), Err(ValueError::TooSmall { least: 1 }));
        assert_eq!(Pieces::received(-5), Err(ValueError::TooSmall { least: 1 }));
        assert!(matches!(Pieces::received(RECEIPT_PIECES_MAX + 1), Err(ValueError::TooLarge { .. })));
        assert!(Pieces::ordered(0).is_err());
    }
}
