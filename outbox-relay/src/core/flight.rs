//! What is read but not yet acknowledged, and the position that may be stored.
//!
//! Pieces are handed to the producer in the order they were read. Their acknowledgements come in any order; the
//! position that may be stored is that of the newest piece which, like every piece before it, is acknowledged whole.

use std::collections::VecDeque;
use std::sync::Arc;

use super::position::Position;
use super::snapshot::Snapshot;

/// How much may be on its way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows without an acknowledgement.
    pub rows_max: usize,
    /// Bytes of their keys, headers and payloads.
    pub bytes_max: usize,
    /// Pieces.
    pub pieces_max: usize,
}

/// Some rows of one round, in id order, handed over together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// How many rows; none when a poll found nothing.
    pub rows: usize,
    /// Their size.
    pub bytes: usize,
    /// The snapshot before their round.
    pub from: Arc<Snapshot>,
    /// The snapshot their round leads to.
    pub to: Arc<Snapshot>,
    /// The position that holds once they and all before are acknowledged.
    pub after: Position,
}

/// The pieces on their way, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flight {
    pieces: VecDeque<(Piece, bool)>,
    /// Number of the oldest.
    first: u64,
    rows: usize,
    bytes: usize,
    reached: Option<Position>,
}

impl Flight {
    /// Takes a piece on its way; its number, ascending by one. A piece without rows has landed at once.
    pub fn launch(&mut self, piece: Piece) -> u64 {
        if let (0, Some((newest, _))) = (piece.rows, self.pieces.back_mut())
            && newest.rows == 0
        {
            // Idle polls behind a piece that waits for Kafka: the newest says it all.
            *newest = piece;
            return self.first + self.pieces.len() as u64 - 1;
        }
        self.rows += piece.rows;
        self.bytes += piece.bytes;
        let landed = piece.rows == 0;
        self.pieces.push_back((piece, landed));
        let number = self.first + self.pieces.len() as u64 - 1;
        self.collect();
        number
    }

    /// Every row of this piece is acknowledged.
    pub fn landed(&mut self, number: u64) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some((_, landed)) = place.and_then(|place| self.pieces.get_mut(place)) {
            *landed = true;
        }
        self.collect();
    }

    fn collect(&mut self) {
        while let Some((_, true)) = self.pieces.front() {
            let Some((piece, _)) = self.pieces.pop_front() else { return };
            self.first += 1;
            self.rows -= piece.rows;
            self.bytes -= piece.bytes;
            self.reached = Some(piece.after);
        }
    }

    /// The newest position whose acknowledgements, and all before, are in; `None` before the first.
    #[must_use]
    pub fn reached(&self) -> Option<&Position> {
        self.reached.as_ref()
    }

    /// The position that holds when everything on its way has landed; `None` before the first piece.
    #[must_use]
    pub fn newest(&self) -> Option<&Position> {
        self.pieces.back().map(|(piece, _)| &piece.after).or(self.reached.as_ref())
    }

    /// After a failure: the position inside the oldest piece when its rows up to `last_id` are acknowledged (`None`: not
    /// even its first). Of later pieces nothing counts.
    #[must_use]
    pub fn reached_inside(&self, last_id: Option<i64>) -> Option<Position> {
        match (self.pieces.front(), last_id) {
            (Some((piece, _)), Some(last_id)) => {
                Some(Position::inside(Arc::clone(&piece.from), Arc::clone(&piece.to), last_id))
            }
            _ => self.reached.clone(),
        }
    }

    /// Whether another piece may be taken: the bounds hold without it, so they are passed by one piece at most.
    #[must_use]
    pub fn has_room(&self, limits: &Limits) -> bool {
        self.rows < limits.rows_max && self.bytes < limits.bytes_max && self.pieces.len() < limits.pieces_max
    }

    /// The oldest piece and its number.
    #[must_use]
    pub fn oldest(&self) -> Option<(u64, &Piece)> {
        self.pieces.front().map(|(piece, _)| (self.first, piece))
    }

    /// Numbers of the pieces that have not landed, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = u64> + '_ {
        let numbered = self.pieces.iter().zip(self.first..);
        numbered.filter(|((_, landed), _)| !landed).map(|(_, number)| number)
    }

    /// Rows on their way.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes on their way.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(rows: usize, xmax: u64) -> Piece {
        let (from, to) = (Arc::new(Snapshot::new(1, vec![])), Arc::new(Snapshot::new(xmax, vec![])));
        Piece { rows, bytes: rows * 10, from, after: Position::at(Arc::clone(&to)), to }
    }

    #[test]
    fn the_position_waits_for_the_oldest_piece() {
        let mut flight = Flight::default();
        let (a, b) = (flight.launch(piece(2, 5)), flight.launch(piece(3, 6)));
        assert_eq!((a, b, flight.rows(), flight.bytes()), (0, 1, 5, 50));
        flight.landed(b);
        assert_eq!(flight.reached(), None);
        flight.landed(a);
        assert_eq!(flight.reached(), Some(&piece(3, 6).after));
        assert!(flight.is_empty() && flight.rows() == 0);
    }

    #[test]
    fn an_empty_piece_lands_with_the_ones_before_it() {
        let mut flight = Flight::default();
        let a = flight.launch(piece(1, 5));
        flight.launch(piece(0, 6));
        assert_eq!(flight.launch(piece(0, 7)), 1, "idle polls take one place only");
        assert_eq!(flight.reached(), None);
        flight.landed(a);
        assert_eq!(flight.reached(), Some(&piece(0, 7).after));
    }

    #[test]
    fn a_failure_counts_the_front_only() {
        let mut flight = Flight::default();
        flight.launch(piece(2, 5));
        let b = flight.launch(piece(2, 6));
        flight.landed(b);
        let oldest = piece(2, 5);
        assert_eq!(flight.reached_inside(Some(7)), Some(Position::inside(oldest.from, oldest.to, 7)));
        assert_eq!(flight.reached_inside(None), None);
    }

    #[test]
    fn bounds_are_passed_by_one_piece_at_most() {
        let limits = Limits { rows_max: 3, bytes_max: 1000, pieces_max: 2 };
        let mut flight = Flight::default();
        assert!(flight.has_room(&limits));
        flight.launch(piece(3, 5));
        assert!(!flight.has_room(&limits));
    }
}
