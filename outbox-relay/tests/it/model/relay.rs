//! Relays in the model: the core's own types, a producer's queue in front of the topics, and the stored position.

use std::sync::Arc;

use outbox_relay::core::flight::{Flight, Limits, Piece};
use outbox_relay::core::position::Position;
use outbox_relay::core::round::{Extent, Next, Polled, Reading, Round};
use outbox_relay::core::snapshot::{Difference, Snapshot};

use super::world::{Row, World};

/// Two pieces on their way: enough that acknowledgements come out of order.
const LIMITS: Limits = Limits { rows_max: 4, bytes_max: usize::MAX, pieces_max: 2 };

/// What is wrong with the relay, or with the commands, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Commands append without locking their aggregate.
    AppendWithoutLock,
    /// A piece is published in the order of transaction ids.
    ReadInXidOrder,
    /// The position is stored when rows are handed to the producer.
    StoreBeforeAcknowledgement,
    /// The position of a landed piece is stored though an older one has not landed.
    StorePastAGap,
    /// A row that failed is sent again behind its successors.
    PassAFailedRow,
    /// The first row of a partition does not travel alone: its successor is on its way when it is refused, and a broker
    /// that knows nothing of the producer there takes it.
    SendBehindAFirstRow,
    /// After a failure the newest acknowledged row of the piece counts, not the last one without a gap.
    CountPastAFailedRow,
    /// A relay goes on from its memory after the database crashed.
    KeepMemoryOverRestart,
    /// A relay that lost its lease may still write the position.
    NoFence,
    /// Retention drops partitions by their age alone.
    DropUnpublished,
    /// Retention believes the running relay instead of the stored position.
    DropWhatWasRead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Relay {
    epoch: u8,
    reading: Reading,
    flight: Flight,
    /// Handed to the producer and not acknowledged, in order: piece number and row.
    queue: Vec<(u64, Row)>,
    /// Acknowledged rows of pieces on their way.
    acknowledged: Vec<(u64, Row)>,
    stored: Position,
    /// For [`Fault::SendBehindAFirstRow`] only: partitions whose broker knows this producer, a bit each.
    begun: u64,
    /// For [`Fault::StorePastAGap`] only: positions of pieces on their way, and that of the newest landed one.
    afters: Vec<(u64, Position)>,
    loose: Option<Position>,
}

impl Relay {
    fn resume(stored: &Position, epoch: u8) -> Self {
        Self {
            epoch,
            reading: Reading::resume(stored.clone()),
            flight: Flight::default(),
            queue: Vec::new(),
            acknowledged: Vec::new(),
            stored: stored.clone(),
            begun: 0,
            afters: Vec::new(),
            loose: None,
        }
    }
}

/// The whole: world, stored position, relays.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Whole {
    pub(super) world: World,
    stored: Position,
    epoch: u8,
    relays: Vec<Relay>,
}

impl Whole {
    pub(super) fn new(world: World) -> Self {
        let stored = Position::at(Arc::new(Snapshot::new(1, Vec::new())));
        let relays = vec![Relay::resume(&stored, 1)];
        Self { world, stored, epoch: 1, relays }
    }

    /// Every next state; an error when one breaks a promise.
    pub(super) fn steps(&self, piece_rows: usize, fault: Fault) -> Result<Vec<Whole>, String> {
        let locks = fault != Fault::AppendWithoutLock;
        let mut next: Vec<Whole> =
            self.world.steps(locks).into_iter().map(|world| Whole { world, ..self.clone() }).collect();
        for place in 0..self.relays.len() {
            next.extend(self.read(place, piece_rows, fault));
            self.append(place, fault, &mut next)?;
            next.extend(self.store(place, fault));
            next.extend(self.crash(place));
        }
        next.extend(self.take_over());
        next.extend(self.restart(fault));
        next.extend(self.drop_partition(fault));
        Ok(next)
    }

    /// Retention drops what everything between two rounds of the stored position sees, and no more.
    fn drop_partition(&self, fault: Fault) -> Option<Whole> {
        let world = self.world.drop_partition(|row| match fault {
            Fault::DropUnpublished => true,
            Fault::DropWhatWasRead => {
                self.relays.iter().any(|relay| relay.reading.position().from.sees(row.xid))
            }
            _ => self.stored.from.sees(row.xid),
        });
        Some(Whole { world: world?, ..self.clone() })
    }

    /// The relay asks what the core says it asks next.
    fn read(&self, place: usize, piece_rows: usize, fault: Fault) -> Option<Whole> {
        if !self.relays[place].flight.has_room(&LIMITS) {
            return None;
        }
        let mut whole = self.clone();
        let relay = &mut whole.relays[place];
        match relay.reading.next() {
            Next::Poll { from } => {
                let now = Arc::new(self.world.snapshot());
                let rows = difference(&self.world, &from, &now);
                if rows.is_empty() && now == from {
                    return None;
                }
                let found = if rows.len() <= piece_rows { Polled::All } else { Polled::TooMany };
                // Only a relay that remembers more than the database does may hear that it is from the future.
                if let Some(after) = relay.reading.polled(Arc::clone(&now), found).ok()? {
                    relay.launch(rows, from, now, after, fault);
                }
            }
            Next::Measure(round) => {
                let left = left(&self.world, &round);
                if let Some(after) = relay.reading.measured(extent(&left, &round)) {
                    relay.launch(Vec::new(), round.from, round.to, after, fault);
                }
            }
            Next::Piece(round, extent) => {
                let rows: Vec<Row> = left(&self.world, &round)
                    .into_iter()
                    .filter(|row| row.id <= extent.high_id)
                    .take(piece_rows)
                    .collect();
                let after = relay.reading.piece_read(rows.last().map(|row| row.id));
                relay.launch(rows, round.from, round.to, after, fault);
            }
        }
        Some(whole)
    }

    /// The broker appends and acknowledges the next row of some partition (one per aggregate), or refuses it.
    fn append(&self, place: usize, fault: Fault, next: &mut Vec<Whole>) -> Result<(), String> {
        let queue = &self.relays[place].queue;
        for (at, (number, row)) in queue.iter().enumerate() {
            if queue[..at].iter().any(|(_, earlier)| earlier.aggregate == row.aggregate) {
                continue;
            }
            let mut whole = self.clone();
            whole.world.publish(*row)?;
            whole.relays[place].acknowledge(at, *number);
            if fault == Fault::SendBehindAFirstRow {
                whole.relays[place].begun |= partition(*row);
            }
            next.push(whole);
            if self.world.budget.failures > 0 {
                let mut refused = self.refuse(place, at, fault);
                let successor = queue[at + 1..].iter().find(|(_, later)| later.aggregate == row.aggregate);
                let new =
                    fault == Fault::SendBehindAFirstRow && self.relays[place].begun & partition(*row) == 0;
                if let Some((_, successor)) = successor.filter(|_| new) {
                    refused.world.publish(*successor)?;
                }
                next.push(refused);
            }
        }
        Ok(())
    }

    /// A delivery fails: everything in the producer is purged, and the relay goes on from what counts as published.
    fn refuse(&self, place: usize, at: usize, fault: Fault) -> Whole {
        let mut whole = self.clone();
        whole.world.budget.failures -= 1;
        let relay = &mut whole.relays[place];
        if fault == Fault::PassAFailedRow {
            let failed = relay.queue.remove(at);
            relay.queue.push(failed);
            return whole;
        }
        let oldest = relay.flight.oldest().map(|(number, _)| number);
        let waiting =
            relay.queue.iter().filter(|(number, _)| Some(*number) == oldest).map(|(_, row)| row.id).min();
        let counts =
            |id: i64| fault == Fault::CountPastAFailedRow || waiting.is_none_or(|waiting| id < waiting);
        let acknowledged =
            relay.acknowledged.iter().filter(|(number, row)| Some(*number) == oldest && counts(row.id));
        let last_id = acknowledged.map(|(_, row)| row.id).max();
        let reached = relay.flight.reached_inside(last_id);
        if let (Some(reached), true) = (reached, relay.epoch == self.epoch) {
            whole.stored = reached;
        }
        if relay.epoch == self.epoch {
            *relay = Relay::resume(&whole.stored, relay.epoch);
        } else {
            whole.relays.remove(place);
        }
        whole
    }

    /// The relay stores its position, at any time after it was reached; the fence ends one that lost its lease.
    fn store(&self, place: usize, fault: Fault) -> Option<Whole> {
        let relay = &self.relays[place];
        let reached = match fault {
            Fault::StoreBeforeAcknowledgement => Some(relay.reading.position().clone()),
            Fault::StorePastAGap => relay.loose.clone(),
            _ => relay.flight.reached().cloned(),
        };
        let reached = reached.filter(|reached| *reached != relay.stored)?;
        let mut whole = self.clone();
        if relay.epoch == self.epoch || fault == Fault::NoFence {
            whole.stored = reached.clone();
            whole.relays[place].stored = reached;
        } else {
            whole.relays.remove(place);
        }
        Some(whole)
    }

    fn crash(&self, place: usize) -> Option<Whole> {
        let mut whole = self.clone();
        whole.world.budget.crashes = self.world.budget.crashes.checked_sub(1)?;
        if self.relays[place].epoch == self.epoch {
            whole.relays[place] = Relay::resume(&self.stored, self.epoch);
        } else {
            whole.relays.remove(place);
        }
        Some(whole)
    }

    /// Another relay takes the lease while the first, stopped, does not know: from now on a zombie.
    fn take_over(&self) -> Option<Whole> {
        let mut whole = self.clone();
        whole.world.budget.crashes = self.world.budget.crashes.checked_sub(1)?;
        whole.epoch += 1;
        whole.relays.push(Relay::resume(&self.stored, whole.epoch));
        Some(whole)
    }

    fn restart(&self, fault: Fault) -> Option<Whole> {
        if self.world.budget.restarts == 0 {
            return None;
        }
        let world = self.world.restart(self.stored.newest().xmax());
        let mut whole = Whole { world, ..self.clone() };
        if fault != Fault::KeepMemoryOverRestart {
            whole.relays = vec![Relay::resume(&self.stored, self.epoch)];
        }
        Some(whole)
    }
}

impl Relay {
    fn launch(
        &mut self,
        mut rows: Vec<Row>,
        from: Arc<Snapshot>,
        to: Arc<Snapshot>,
        after: Position,
        fault: Fault,
    ) {
        if fault == Fault::ReadInXidOrder {
            rows.sort_by_key(|row| (row.xid, row.id));
        }
        if fault == Fault::StorePastAGap && rows.is_empty() {
            self.loose = Some(after.clone());
        }
        let piece = Piece { rows: rows.len(), bytes: rows.len(), from, to, after: after.clone() };
        let number = self.flight.launch(piece);
        self.queue.extend(rows.into_iter().map(|row| (number, row)));
        if fault == Fault::StorePastAGap {
            self.afters.push((number, after));
        }
    }

    fn acknowledge(&mut self, at: usize, number: u64) {
        let acknowledged = self.queue.remove(at);
        self.acknowledged.push(acknowledged);
        if !self.queue.iter().any(|(other, _)| *other == number) {
            self.flight.landed(number);
            self.acknowledged.retain(|(other, _)| *other != number);
            let after = self.afters.iter().find(|(other, _)| *other == number);
            self.loose = after.map(|(_, after)| after.clone()).or(self.loose.take());
        }
        self.acknowledged.sort_by_key(|(_, row)| row.id);
    }
}

/// The bit of a row's partition: there is one for each aggregate.
fn partition(row: Row) -> u64 {
    1 << (u32::from(row.aggregate) % u64::BITS)
}

/// The rows of a round, by id, chosen by the conditions that the SQL uses.
fn difference(world: &World, from: &Snapshot, to: &Snapshot) -> Vec<Row> {
    let difference = Difference::between(from, to);
    let mut rows: Vec<Row> = world.rows().filter(|row| difference.takes(row.xid)).collect();
    rows.sort_by_key(|row| row.id);
    rows
}

fn left(world: &World, round: &Round) -> Vec<Row> {
    difference(world, &round.from, &round.to).into_iter().filter(|row| row.id > round.after).collect()
}

fn extent(left: &[Row], round: &Round) -> Option<Extent> {
    let high_id = left.last()?.id;
    let begun = left.iter().find(|row| row.xid >= round.from.xmax());
    let begun_low_id = begun.map_or(high_id + 1, |row| row.id);
    Some(Extent { rows: left.len() as u64, begun_low_id, high_id, finished: Vec::new() })
}
