//! How relays that serve the same databases share them out: when a holder gives one back, and to whom it is left.
//!
//! A relay that waits for a database shows how many its process holds. A holder gives one back when somebody who waits
//! for it holds at least two fewer. The sum of the squares of what each holds falls with every such move, so the moves
//! end, and where none is left nobody who waits holds two fewer than the holder. What is shown may be a little old:
//! hence one at a time, and a rest after each until what is shown is new again. Without the rest relays would hand
//! databases back and forth; `tests/it/model/share.rs` explores both.

/// By how many a waiting relay must hold fewer: with one fewer, a move would only exchange the two.
pub const APART: usize = 2;

/// What a process shows that would not publish at present what it was given: more than any holds.
pub const NOT_NOW: usize = 99;

/// What a process knows of its own share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    held: usize,
    giving: bool,
    resting: bool,
}

impl Share {
    /// Databases held. One that can not be published just now counts too: its lease is held, nobody else has it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// A lease was granted.
    pub fn took(&mut self) {
        self.held += 1;
    }

    /// A lease was given back, or lost.
    pub fn lost(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Whether a database is given back now, for which somebody waits who holds `fewest`. If so, no other is until it is
    /// [settled](Self::settled) and [rested](Self::rested).
    pub fn gives(&mut self, fewest: usize) -> bool {
        let gives = !self.giving && !self.resting && fewest + APART <= self.held;
        self.giving |= gives;
        gives
    }

    /// Who took what was given is known: the rest begins.
    pub fn settled(&mut self) {
        self.giving = false;
        self.resting = true;
    }

    /// What every relay shows is newer than the last move.
    pub fn rested(&mut self) {
        self.resting = false;
    }
}

/// Whether somebody who waits and holds `other` goes before one who holds `own` when a database was given back. The
/// statement that takes a lease asks the same.
#[must_use]
pub fn goes_before(other: usize, own: usize) -> bool {
    other < own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_only_to_one_that_holds_two_fewer() {
        let mut share = Share::default();
        for _ in 0..4 {
            share.took();
        }
        assert!(!share.gives(3) && !share.gives(NOT_NOW));
        assert!(share.gives(2));
        assert!(!share.gives(0), "one is on its way");
        share.lost();
        share.settled();
        assert!(!share.gives(0), "it rests");
        share.rested();
        assert!(!share.gives(2) && share.gives(1));
    }
}
