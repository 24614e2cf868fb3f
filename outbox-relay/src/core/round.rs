//! What to read next: rounds that lead from one snapshot to the next, small ones whole, large ones in pieces.
//!
//! A round publishes every row that its second snapshot sees and its first did not, by id. It is right because a
//! command locks its aggregate before it appends: an earlier event of the aggregate was committed before the later one
//! was inserted, so a snapshot that sees the later sees the earlier, and the earlier has the smaller id. Nothing waits
//! for a transaction that is still open: its rows belong to the round whose second snapshot is the first to see them.

use std::sync::Arc;

use super::position::{Inside, Position};
use super::snapshot::{Snapshot, Xid};

/// What to ask the database next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Take a snapshot, and with it all rows it sees that `from` did not, if they fit in one piece.
    Poll {
        /// The snapshot up to which everything is read.
        from: Arc<Snapshot>,
    },
    /// Find out how far a large round reaches.
    Measure(Round),
    /// Read the next piece of a large round.
    Piece(Round, Extent),
}

/// A round too large for one piece, and how far it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The snapshot before it.
    pub from: Arc<Snapshot>,
    /// The snapshot it leads to.
    pub to: Arc<Snapshot>,
    /// Rows up to this id are read.
    pub after: i64,
}

/// How far the rest of a large round reaches. It does not change while the round is read: both snapshots are fixed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Rows left, when it was measured.
    pub rows: u64,
    /// Lowest id of the transactions that began after the first snapshot.
    pub begun_low_id: i64,
    /// Highest id of the whole round.
    pub high_id: i64,
    /// Of the transactions that the first snapshot saw running and the second sees: those that have rows.
    pub finished: Vec<Xid>,
}

/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Every row of the difference was read; there may be none.
    All,
    /// More than a piece: nothing was read.
    TooMany,
}

/// The position is newer than the database: this is not the cluster that wrote it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the stored position knows transactions up to {stored}, this server only up to {server}: the tables were moved \
     here from another server (dump and restore). Nothing is published until it is mended: `select * from \
     outbox_mend_restored(apply => true)`, see docs/relay.md, \"After a restore\""
)]
pub struct FromTheFuture {
    /// Upper edge of the position.
    pub stored: Xid,
    /// Upper edge of the server's present snapshot.
    pub server: Xid,
}

/// Where reading stands: ahead of what is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    position: Position,
    extent: Option<Extent>,
}

impl Reading {
    /// Goes on from a stored position, between rounds or inside one.
    #[must_use]
    pub fn resume(position: Position) -> Self {
        Self { position, extent: None }
    }

    /// Where reading stands.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// What to ask next.
    #[must_use]
    pub fn next(&self) -> Next {
        let from = Arc::clone(&self.position.from);
        match (&self.position.inside, &self.extent) {
            (None, _) => Next::Poll { from },
            (Some(inside), extent) => {
                let round = Round { from, to: Arc::clone(&inside.to), after: inside.last_id };
                match extent {
                    None => Next::Measure(round),
                    Some(extent) => Next::Piece(round, extent.clone()),
                }
            }
        }
    }

    /// The answer to [`Next::Poll`]: the snapshot it took and what it found. Returns the position that holds once the
    /// rows read are acknowledged, or `None` when a large round begins.
    ///
    /// # Errors
    /// [`FromTheFuture`] when the server has not come as far as the position.
    pub fn polled(&mut self, now: Arc<Snapshot>, found: Polled) -> Result<Option<Position>, FromTheFuture> {
        let (stored, server) = (self.position.newest().xmax(), now.xmax());
        if stored > server {
            return Err(FromTheFuture { stored, server });
        }
        match found {
            Polled::All => {
                self.position = Position::at(now);
                Ok(Some(self.position.clone()))
            }
            Polled::TooMany => {
                self.position.inside = Some(Inside { to: now, last_id: i64::MIN });
                self.extent = None;
                Ok(None)
            }
        }
    }

    /// The answer to [`Next::Measure`]; `None` when no row is left, which ends the round: then the position after it.
    pub fn measured(&mut self, extent: Option<Extent>) -> Option<Position> {
        self.extent = extent;
        if self.extent.is_some() { None } else { Some(self.end_round()) }
    }

    /// The answer to [`Next::Piece`]: the id of its last row, `None` when it had none. Returns the position that holds
    /// once the piece and all before it are acknowledged.
    pub fn piece_read(&mut self, last_id: Option<i64>) -> Position {
        let high_id = self.extent.as_ref().map_or(i64::MIN, |extent| extent.high_id);
        match (last_id, self.position.inside.as_mut()) {
            (Some(last_id), Some(inside)) if last_id < high_id => {
                inside.last_id = last_id;
                self.position.clone()
            }
            _ => self.end_round(),
        }
    }

    fn end_round(&mut self) -> Position {
        self.extent = None;
        if let Some(inside) = self.position.inside.take() {
            self.position.from = inside.to;
        }
        self.position.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Arc<Snapshot> {
        Arc::new(text.parse().unwrap())
    }

    #[test]
    fn a_small_round_moves_to_the_new_snapshot() {
        let mut reading = Reading::resume(Position::at(snapshot("5:5:")));
        assert_eq!(reading.next(), Next::Poll { from: snapshot("5:5:") });
        let after = reading.polled(snapshot("7:9:7"), Polled::All).unwrap();
        assert_eq!(after, Some(Position::at(snapshot("7:9:7"))));
        assert_eq!(reading.next(), Next::Poll { from: snapshot("7:9:7") });
    }

    #[test]
    fn a_large_round_is_measured_and_read_in_pieces() {
        let (from, to) = (snapshot("5:5:"), snapshot("9:9:"));
        let mut reading = Reading::resume(Position::at(Arc::clone(&from)));
        assert_eq!(reading.polled(Arc::clone(&to), Polled::TooMany).unwrap(), None);
        let round = |after| Round { from: Arc::clone(&from), to: Arc::clone(&to), after };
        assert_eq!(reading.next(), Next::Measure(round(i64::MIN)));
        let extent = Extent { rows: 30, begun_low_id: 1, high_id: 30, finished: vec![] };
        assert_eq!(reading.measured(Some(extent.clone())), None);
        assert_eq!(reading.next(), Next::Piece(round(i64::MIN), extent.clone()));
        let after = reading.piece_read(Some(20));
        assert_eq!(after, Position::inside(Arc::clone(&from), Arc::clone(&to), 20));
        assert_eq!(reading.next(), Next::Piece(round(20), extent));
        assert_eq!(reading.piece_read(Some(30)), Position::at(to));
    }

    #[test]
    fn a_stored_place_inside_a_round_is_measured_again() {
        let (from, to) = (snapshot("5:5:"), snapshot("9:9:"));
        let mut reading = Reading::resume(Position::inside(Arc::clone(&from), Arc::clone(&to), 20));
        assert_eq!(reading.next(), Next::Measure(Round { from, to: Arc::clone(&to), after: 20 }));
        assert_eq!(reading.measured(None), Some(Position::at(Arc::clone(&to))));
        assert_eq!(reading.next(), Next::Poll { from: to });
    }

    #[test]
    fn a_position_from_the_future_is_refused() {
        let mut reading = Reading::resume(Position::at(snapshot("100:100:")));
        let refused = reading.polled(snapshot("90:90:"), Polled::All);
        assert_eq!(refused, Err(FromTheFuture { stored: 100, server: 90 }));
        assert_eq!(reading.next(), Next::Poll { from: snapshot("100:100:") });
    }
}
