//! The levels of the SKUs one wave of commands needs, held in memory while it decides: all lines of a movement or none.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use waybill_events::Sku;

use super::reservation::Refusal;
use super::stock::{Levels, LevelsError, Line, MovementKind, Pieces};

/// An order far beyond any shop's limit; keeps one command's work and its ledger rows bounded.
pub const LINES_MAX: usize = 500;

/// What an order asks for: 1 to [`LINES_MAX`] lines, each SKU once, in the order's own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

/// Lines that break the message contract.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinesError {
    /// Nothing is asked for.
    #[error("there is no line")]
    None,
    /// Too much is asked for.
    #[error("there are {found} lines, at most {LINES_MAX} are allowed")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// One SKU in two lines.
    #[error("SKU {0} is in more than one line")]
    Twice(Sku),
}

impl Lines {
    /// Takes lines from outside.
    ///
    /// # Errors
    /// [`LinesError`].
    pub fn new(lines: Vec<Line>) -> Result<Self, LinesError> {
        if lines.is_empty() {
            return Err(LinesError::None);
        }
        if lines.len() > LINES_MAX {
            return Err(LinesError::TooMany { found: lines.len() });
        }
        let mut seen = BTreeSet::new();
        if let Some(line) = lines.iter().find(|line| !seen.insert(&line.sku)) {
            return Err(LinesError::Twice(line.sku.clone()));
        }
        Ok(Self(lines))
    }

    /// The lines in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Line> {
        self.0.iter()
    }
}

/// What changes of one SKU. A wave only moves pieces, so its three numbers add up to zero; those of a receipt do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelsChange {
    /// Which.
    pub sku: Sku,
    /// Added to available.
    pub available: i64,
    /// Added to reserved.
    pub reserved: i64,
    /// Added to shipped.
    pub shipped: i64,
}

/// A movement the shelf can not make though the reservation says it must: rows that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShelfError {
    /// The SKU has no stock row.
    #[error("SKU {0} has no stock row")]
    Missing(Sku),
    /// The levels refuse.
    #[error("stock of SKU {sku} contradicts the reservation")]
    Levels {
        /// Which.
        sku: Sku,
        /// Why.
        #[source]
        source: LevelsError,
    },
}

/// The locked levels, as loaded and as they become.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    loaded: BTreeMap<Sku, Levels>,
    now: BTreeMap<Sku, Levels>,
}

impl Shelf {
    /// The levels as the database holds them; a SKU that is not here does not exist.
    #[must_use]
    pub fn new(levels: BTreeMap<Sku, Levels>) -> Self {
        Self { now: levels.clone(), loaded: levels }
    }

    /// Why these lines can not be reserved, told by the first line that can not; `None` when they can.
    #[must_use]
    pub fn refusal(&self, lines: &Lines) -> Option<Refusal> {
        lines.iter().find_map(|line| match self.now.get(&line.sku) {
            None => Some(Refusal::UnknownSku(line.sku.clone())),
            Some(levels) if levels.available < i64::from(line.pieces.get()) => {
                Some(Refusal::InsufficientStock(line.sku.clone()))
            }
            Some(_) => None,
        })
    }

    /// Moves every line, or none of them.
    ///
    /// # Errors
    /// [`ShelfError`]; the shelf is unchanged.
    pub fn apply(&mut self, kind: MovementKind, lines: &Lines) -> Result<(), ShelfError> {
        let next = lines.iter().map(|line| self.after(kind, &line.sku, line.pieces));
        let next = next.collect::<Result<Vec<_>, _>>()?;
        self.now.extend(next);
        Ok(())
    }

    fn after(&self, kind: MovementKind, sku: &Sku, pieces: Pieces) -> Result<(Sku, Levels), ShelfError> {
        let levels = self.now.get(sku).ok_or_else(|| ShelfError::Missing(sku.clone()))?;
        let next = levels.after(kind, pieces);
        let next = next.map_err(|source| ShelfError::Levels { sku: sku.clone(), source })?;
        Ok((sku.clone(), next))
    }

    /// What differs from the loaded levels, by SKU.
    #[must_use]
    pub fn changes(&self) -> Vec<LevelsChange> {
        let pairs = self.now.iter().filter_map(|(sku, now)| Some((sku, now, self.loaded.get(sku)?)));
        let changes = pairs.filter(|(_, now, loaded)| now != loaded).map(|(sku, now, loaded)| LevelsChange {
            sku: sku.clone(),
            available: now.available - loaded.available,
            reserved: now.reserved - loaded.reserved,
            shipped: now.shipped - loaded.shipped,
        });
        changes.collect()
    }
}
