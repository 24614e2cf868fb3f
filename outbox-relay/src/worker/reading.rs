//! The task that reads: asks what the core says comes next, a piece ahead of the one being published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use waybill_runtime::failpoints;

use super::Worker;
use super::age::Age;
use super::pause::pause;
use super::tenure::ReadingError;
use crate::config::Tuning;
use crate::core::position::Position;
use crate::core::round::{Extent, Next, Polled, Reading, Round};
use crate::core::snapshot::Snapshot;
use crate::metrics::Metrics;
use crate::store::{Measuring, PieceRows, Reader, ReaderError, Row};

/// Pieces read and not yet taken: one waits while one is published and one is read.
const PIECES_AHEAD_MAX: usize = 1;
/// First pause after a poll that found nothing; each is longer by a quarter than the one before. Rows that come again after
/// a while wait for less than a quarter of it on average; doubled pauses made them wait for twice as long, and saved no
/// processor time that could be measured.
const IDLE_PAUSE_FIRST: Duration = Duration::from_millis(1);
/// After a round of a few rows the relay waits so many times as long as the look took that found it, up to the
/// configured pause: so looking takes at most a fifth of a processor. Where there is room a look takes half a millisecond
/// and rows hardly wait; where processors are short it takes longer, and the rows of more transactions travel in one
/// round, which costs a read, a request to the broker for every partition, and a fetch by every consumer, whatever its
/// size.
const PAUSE_PER_LOOK: u32 = 4;
/// A round of so many rows is worth its cost, and followed by the next at once; the pause after a smaller one is shorter
/// the nearer it comes. Without that, a look that takes long because it found many would be followed by a long pause, in
/// which there would be yet more to find.
const WORTH_ROWS: u32 = 128;

/// Some rows of a round, in id order.
pub(super) struct ReadPiece {
    pub(super) rows: Vec<Row>,
    pub(super) from: Arc<Snapshot>,
    pub(super) to: Arc<Snapshot>,
    /// The position once they and all before are acknowledged.
    pub(super) after: Position,
    /// Rows of the round that come after them.
    pub(super) rows_left: u64,
    /// Whether what comes after them is read on another connection.
    pub(super) reconnected: bool,
}

/// Pieces as they are read; an error ends them.
pub(super) struct Pieces {
    pub(super) receiver: Receiver<Result<ReadPiece, ReadingError>>,
    task: JoinHandle<()>,
}

impl Drop for Pieces {
    /// The connection goes with the task: a statement in the middle is nobody else's.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts reading from the position.
pub(super) fn start(worker: &Worker, position: Position) -> Pieces {
    let (sender, receiver) = channel(PIECES_AHEAD_MAX);
    let options = worker.database.options.clone();
    let (tuning, metrics, age) = (worker.tuning, worker.metrics.clone(), Arc::clone(&worker.age));
    let task = tokio::spawn(async move {
        let mut task = Task {
            tuning,
            metrics,
            age,
            sender,
            reading: Reading::resume(position),
            rows_left: 0,
            reconnected: false,
            idle: IDLE_PAUSE_FIRST,
        };
        if let Err(error) = task.run(&options).await {
            // Nobody listens any more: the tenure is over for another reason.
            let _unheard = task.sender.send(Err(error)).await;
        }
    });
    Pieces { receiver, task }
}

struct Task {
    tuning: Tuning,
    metrics: Metrics,
    age: Arc<Age>,
    sender: Sender<Result<ReadPiece, ReadingError>>,
    reading: Reading,
    rows_left: u64,
    reconnected: bool,
    idle: Duration,
}

impl Task {
    async fn run(&mut self, options: &sqlx::postgres::PgConnectOptions) -> Result<(), ReadingError> {
        self.age.asked();
        let connecting = Reader::connect(options, self.tuning.piece, self.tuning.statement_timeout);
        let mut reader = connecting.await.map_err(ReaderError::from)?;
        while !self.sender.is_closed() {
            self.age.asked();
            match self.reading.next() {
                Next::Poll { from } => self.poll(&mut reader, from).await?,
                Next::Measure(round) => {
                    let extent = self.measure(&mut reader, &round).await?;
                    self.rows_left = extent.as_ref().map_or(0, |extent| extent.rows);
                    if let Some(after) = self.reading.measured(extent) {
                        self.send(Vec::new(), round.from, round.to, after).await;
                    }
                }
                Next::Piece(round, extent) => {
                    let asked = Instant::now();
                    let PieceRows { rows, reconnected } = reader.piece(&round, &extent).await?;
                    self.reconnected = reconnected;
                    self.age.answered();
                    self.found(rows.len(), asked.elapsed());
                    failpoints::reach("inside_reading");
                    let after = self.reading.piece_read(rows.last().map(Row::id));
                    let ended = after.inside.is_none();
                    self.rows_left = if ended { 0 } else { self.rows_left.saturating_sub(rows.len() as u64) };
                    // Ids come in the order of time, nearly: the rest is as old as the last of these.
                    let rest_us = rows.last().filter(|_| !ended).map(Row::created_at_us);
                    self.send(rows, round.from, round.to, after).await;
                    self.age.unread(rest_us);
                }
            }
        }
        Ok(())
    }

    /// Range by range, each of which is an answer.
    async fn measure(&self, reader: &mut Reader, round: &Round) -> Result<Option<Extent>, ReadingError> {
        let mut measuring = Measuring::of(round);
        while let Some(clock_us) = reader.measure(&mut measuring).await? {
            self.age.answered();
            self.age.clock(clock_us);
            self.age.asked();
        }
        self.age.answered();
        Ok(measuring.extent())
    }

    async fn poll(&mut self, reader: &mut Reader, from: Arc<Snapshot>) -> Result<(), ReadingError> {
        let asked = Instant::now();
        let poll = reader.poll(&from).await;
        let took = asked.elapsed();
        // Rows of another cluster are an answer too.
        if !matches!(poll, Err(ReaderError::Store(_))) {
            self.age.answered();
        }
        let poll = poll?;
        self.age.clock(poll.clock_us);
        let found = if poll.rows.is_some() { Polled::All } else { Polled::TooMany };
        let Some(after) = self.reading.polled(Arc::clone(&poll.now), found)? else {
            self.metrics.round("large");
            self.age.unread(poll.oldest_us);
            return Ok(());
        };
        let rows = poll.rows.unwrap_or_default();
        let count = rows.len();
        if count > 0 {
            failpoints::reach("after_snapshot");
        }
        self.found(count, took);
        self.metrics.round(if count == 0 { "empty" } else { "small" });
        self.rows_left = 0;
        self.send(rows, from, poll.now, after).await;
        self.age.unread(None);
        self.pause(count, took).await;
        Ok(())
    }

    /// A read was answered with so many rows.
    fn found(&self, rows: usize, took: Duration) {
        if rows > 0 {
            self.metrics.piece_rows.observe(rows as f64);
            self.metrics.read_seconds.observe(took.as_secs_f64());
        }
    }

    /// Waits until the publishing side has taken the piece before the last.
    async fn send(&mut self, rows: Vec<Row>, from: Arc<Snapshot>, to: Arc<Snapshot>, after: Position) {
        let reconnected = std::mem::take(&mut self.reconnected);
        let piece = ReadPiece { rows, from, to, after, rows_left: self.rows_left, reconnected };
        // A closed channel ends the loop.
        let _closed = self.sender.send(Ok(piece)).await;
    }

    /// Later and later after polls that find nothing.
    async fn pause(&mut self, count: usize, look: Duration) {
        let time = if count == 0 {
            let idle = self.idle;
            self.idle = (idle + idle / 4).min(self.tuning.poll_idle_max);
            idle
        } else {
            self.idle = IDLE_PAUSE_FIRST;
            busy_pause(count, look, self.tuning.poll_busy_pause)
        };
        pause(time).await;
    }
}

/// How long to wait after a round of so many rows, which a look of this length found.
fn busy_pause(count: usize, look: Duration, max: Duration) -> Duration {
    let wanting = WORTH_ROWS - u32::try_from(count).map_or(WORTH_ROWS, |count| count.min(WORTH_ROWS));
    (look * PAUSE_PER_LOOK).min(max) * wanting / WORTH_ROWS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_follows_the_look_and_ends_with_rounds_that_are_worth_it() {
        let (ms, max) = (Duration::from_millis, Duration::from_millis(16));
        assert_eq!(busy_pause(1, ms(1), max), ms(4) * 127 / 128);
        assert_eq!(busy_pause(64, ms(2), max), ms(4));
        assert_eq!(busy_pause(64, ms(400), max), ms(8), "never longer than it may be");
        assert_eq!(busy_pause(128, ms(2), max), Duration::ZERO);
        assert_eq!(busy_pause(usize::MAX, ms(2), max), Duration::ZERO);
        assert_eq!(busy_pause(1, ms(2), Duration::ZERO), Duration::ZERO);
    }
}
