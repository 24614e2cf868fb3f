//! The task that publishes: hands pieces to the producer in order, keeps the lease, stores what is acknowledged.

mod closing;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use waybill_runtime::failpoints;

use super::Worker;
use super::keeping::Keeping;
use super::on_its_way::OnItsWay;
use super::reading::{self, Pieces, ReadPiece};
use super::tenure::{End, ReadingError, Refused, Tenure};
use crate::core::flight::{Flight, Piece};
use crate::core::lease::{Duty, Lease};
use crate::core::position::Position;
use crate::publish::{Landing, Producer, Send, Tag, TopicCheck};
use crate::status::{FaultKind, Phase};
use crate::store::{Keeper, KeeperError, Row};

/// Longest time between two looks at the lease, the producer and the metrics.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Rows handed over between two looks at the lease: a few hundred microseconds.
const ROWS_BETWEEN_LOOKS: usize = 256;
/// Rows that are worth a write of the position; fewer wait for the next renewal of the lease.
const ROWS_WORTH_A_WRITE: usize = 500;
/// A producer without a connection for longer than this is a fault; less is how long connecting takes.
const CONNECTING_SLOW: Duration = Duration::from_secs(2);
/// Pause between two looks at one row: whether there is room for it, whether it landed.
const ROW_PAUSE: Duration = Duration::from_millis(1);
/// Pause between two questions for a missing topic, or for a broker that does not answer.
const QUESTION_PAUSE: Duration = Duration::from_secs(1);

/// One tenure's publishing.
pub(super) struct Publishing<'a> {
    worker: &'a Worker,
    keeping: Keeping,
    lease: Lease,
    producer: Producer,
    landing: Arc<Landing>,
    pieces: Pieces,
    flight: Flight,
    on_its_way: VecDeque<OnItsWay>,
    stored: Position,
    stored_at: Instant,
    rows_since_stored: usize,
    rows_left: u64,
    /// Since when no broker answers, as far as is known.
    down_since: Option<Instant>,
    probe: Option<JoinHandle<()>>,
    probed_at: Option<Instant>,
    progress: bool,
    rows_alone: usize,
    /// Rows handed over in this tenure.
    handed_over: u64,
}

impl<'a> Publishing<'a> {
    /// From a granted lease to its end.
    pub(super) async fn run(worker: &'a Worker, keeper: Keeper, lease: Lease, position: Position) -> Tenure {
        let landing =
            Landing::new(worker.tuning.in_flight.pieces_max + 1, worker.tuning.piece.rows_max as usize);
        let producer = match Producer::start(&worker.kafka, landing) {
            Ok(producer) => producer,
            Err(error) => return Tenure::before_publishing(End::Producer(error)),
        };
        let pieces = reading::start(worker, position.clone());
        let mut publishing = Self {
            worker,
            keeping: Keeping::Free(keeper),
            lease,
            landing: Arc::clone(producer.landing()),
            producer,
            pieces,
            flight: Flight::default(),
            on_its_way: VecDeque::new(),
            stored: position,
            stored_at: Instant::now(),
            rows_since_stored: 0,
            rows_left: 0,
            down_since: None,
            probe: None,
            probed_at: None,
            progress: false,
            rows_alone: worker.rows_alone,
            handed_over: 0,
        };
        let why = publishing.until_the_end().await;
        worker.tell_at_once(&why);
        publishing.close(why).await
    }

    async fn until_the_end(&mut self) -> End {
        loop {
            if let Err(end) = self.look().await {
                return end;
            }
            let room = self.flight.has_room(&self.worker.tuning.in_flight);
            let landing = Arc::clone(&self.landing);
            tokio::select! {
                biased;
                () = self.worker.shutdown.requested() => return End::Shutdown,
                piece = self.pieces.receiver.recv(), if room => {
                    let handed = match piece {
                        Some(Ok(piece)) => self.hand_over(piece).await,
                        Some(Err(error)) => Err(End::Reading(error)),
                        None => Err(End::Reading(ReadingError::Gone)),
                    };
                    if let Err(end) = handed {
                        return end;
                    }
                }
                () = landing.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Hands every row of a piece to the producer, in order, waiting where it must.
    async fn hand_over(&mut self, piece: ReadPiece) -> Result<(), End> {
        self.worker.status.clear(FaultKind::Postgres);
        self.worker.status.clear(FaultKind::Position);
        if piece.reconnected {
            self.the_server_lives_on().await?;
        }
        self.rows_left = piece.rows_left;
        let rows = piece.rows;
        let bytes = rows.iter().map(Row::size).sum();
        let number = self.flight.launch(Piece {
            rows: rows.len(),
            bytes,
            from: piece.from,
            to: piece.to,
            after: piece.after,
        });
        if rows.is_empty() {
            return Ok(());
        }
        let slot = usize::try_from(number % self.landing.slots() as u64).unwrap_or_default();
        self.landing.begin(slot, rows.len());
        self.on_its_way.push_back(OnItsWay::begin(number, slot, &rows, bytes));
        for (place, row) in rows.iter().enumerate() {
            if place > 0 && place % ROWS_BETWEEN_LOOKS == 0 {
                tokio::task::yield_now().await;
                self.look().await?;
            }
            self.send(row, Tag { slot, place }).await?;
        }
        failpoints::reach("after_produce");
        Ok(())
    }

    /// The reader let go of its connection and remembers what it read on it, which is right on the next one unless the
    /// server crashed in between: then the connection that keeps the lease has not outlived that, and does not answer.
    async fn the_server_lives_on(&mut self) -> Result<(), End> {
        // The answer to a question that was asked before it does not tell.
        self.kept().await?;
        self.keep();
        self.kept().await?;
        Ok(())
    }

    async fn send(&mut self, row: &Row, tag: Tag) -> Result<(), End> {
        let topic = row.topic().map_err(|error| End::Reading(ReadingError::Reader(error.into())))?;
        let to = loop {
            match self.producer.destination(row, topic).map_err(End::Row)? {
                Some(to) => break to,
                None => self.ask_for_topic(topic).await?,
            }
        };
        // Not until something landed: rows of one piece may fill the queue, and it lands with its last one.
        while self.producer.send(row, topic, to, tag).map_err(End::Row)? == Send::Full {
            self.meanwhile(tokio::time::sleep(ROW_PAUSE)).await?;
        }
        self.handed_over += 1;
        if let Some(newest) = self.on_its_way.back_mut() {
            newest.sent = tag.place + 1;
        }
        if self.rows_alone > 0 {
            self.rows_alone -= 1;
            while self.landing.landed_without_gap(tag.slot) <= tag.place {
                self.meanwhile(tokio::time::sleep(ROW_PAUSE)).await?;
            }
        } else if to.alone {
            while !self.landing.has_landed(tag) {
                self.meanwhile(tokio::time::sleep(ROW_PAUSE)).await?;
            }
        }
        Ok(())
    }

    /// Waits until the topic is known to exist: a row for a missing topic stops everything behind it.
    async fn ask_for_topic(&mut self, topic: &str) -> Result<(), End> {
        loop {
            let question = self.producer.check_topic(topic);
            match self.meanwhile(question).await? {
                TopicCheck::Exists(partitions) => {
                    self.producer.learn(topic, partitions);
                    self.landing.brokers_answer();
                    self.worker.status.clear(FaultKind::Topic);
                    return Ok(());
                }
                TopicCheck::Missing(why) => {
                    let text = format!(
                        "topic {topic} can not be written: {why}; nothing passes its row, it is looked for again"
                    );
                    self.worker.fault(FaultKind::Topic, &text);
                }
                TopicCheck::Away(why) => self.landing.brokers_are_silent(&why),
            }
            self.meanwhile(tokio::time::sleep(QUESTION_PAUSE)).await?;
        }
    }

    /// Waits for something else while the lease is kept; the shutdown, a failure or the loss of the lease come first.
    async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> Result<T, End> {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                biased;
                () = self.worker.shutdown.requested() => return Err(End::Shutdown),
                done = &mut other => {
                    self.look().await?;
                    return Ok(done);
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            self.look().await?;
        }
    }

    /// Takes in what landed, keeps the lease, stores the position when it is due, measures.
    async fn look(&mut self) -> Result<(), End> {
        self.take_landed();
        // Before the first row the topic says more: who may not write it may not begin to write either.
        if self.on_its_way.front().is_some_and(|oldest| oldest.sent > 0) {
            self.producer.notice_end();
        }
        if let Some(failure) = self.landing.failure().await {
            let id = failure.tag.and_then(|tag| self.id(tag));
            return Err(End::Delivery(Refused { id, failure }));
        }
        // Half of the lease without an answer: from here on nothing is handed over before it comes.
        if self.keeping.is_answered() || self.duty() == Duty::StepDown {
            let fewest = self.kept().await?;
            self.share(fewest)?;
        }
        let worth = self.rows_since_stored >= ROWS_WORTH_A_WRITE
            && self.stored_at.elapsed() >= self.worker.tuning.position_interval;
        match self.duty() {
            Duty::StepDown => return Err(End::LeaseLost),
            Duty::Publish if !worth => {}
            Duty::Publish | Duty::Renew => self.keep(),
        }
        self.watch_kafka();
        self.measure();
        Ok(())
    }

    fn duty(&self) -> Duty {
        self.lease.duty(self.worker.started.elapsed())
    }

    fn take_landed(&mut self) {
        let before = self.on_its_way.len();
        while let Some(oldest) = self.on_its_way.front().filter(|oldest| self.landing.landed(oldest.slot)) {
            self.flight.landed(oldest.number);
            self.rows_since_stored += oldest.ids.len();
            self.worker.metrics.rows.inc_by(oldest.ids.len() as u64);
            self.worker.metrics.bytes.inc_by(oldest.bytes as u64);
            self.worker.metrics.acknowledged_seconds.observe(oldest.began.elapsed().as_secs_f64());
            self.on_its_way.pop_front();
            self.progress = true;
            self.worker.status.clear(FaultKind::Delivery);
        }
        let anew = self.on_its_way.len() < before;
        if let Some(oldest) = self.on_its_way.front_mut() {
            oldest.look(&self.landing, anew);
        }
    }

    /// Gives the database back when somebody waits for it who holds two fewer; not one that can not be published just now:
    /// what is on its way would not land, and the other would stand before the same.
    fn share(&self, fewest: Option<usize>) -> Result<(), End> {
        let Some(fewest) = fewest.filter(|_| self.rows_alone == 0 && self.worker.status.is_publishing())
        else {
            return Ok(());
        };
        let Some(held) = self.worker.sharing.gives(fewest) else { return Ok(()) };
        tracing::info!(
            database = self.worker.database.name,
            held,
            fewest,
            "given back for balance: a relay waits for it that holds fewer"
        );
        self.worker.metrics.handed_over.inc();
        Err(End::HandedOver)
    }

    /// Has the lease renewed and the newest acknowledged position stored, in one write.
    fn keep(&mut self) {
        if !self.keeping.is_free() {
            return;
        }
        let reached = self.flight.reached().filter(|reached| **reached != self.stored).cloned();
        if reached.is_some() {
            failpoints::reach("before_position");
        }
        self.keeping.ask(self.lease.epoch(), reached, self.worker.started.elapsed());
        self.stored_at = Instant::now();
        self.rows_since_stored = 0;
    }

    /// That was done, or is waited for. Returns what the one holds that holds the fewest of those who wait.
    async fn kept(&mut self) -> Result<Option<usize>, End> {
        let kept = match self.keeping.answer().await {
            Ok(Some(kept)) => kept,
            Ok(None) => return Ok(None),
            Err(KeeperError::LeaseLost) => return Err(End::LeaseLost),
            Err(error) => return Err(End::Keeping(error)),
        };
        self.lease.renewed(kept.asked_at);
        if let Some(stored) = kept.stored {
            self.stored = stored;
            self.worker.metrics.positions.inc();
            failpoints::reach("after_position");
        }
        Ok(kept.fewest)
    }

    /// Notices that no broker answers, and that one does again.
    fn watch_kafka(&mut self) {
        let down = self.landing.brokers_down();
        self.down_since = down.then(|| self.down_since.unwrap_or_else(Instant::now));
        let slow = self.down_since.is_some_and(|since| since.elapsed() > CONNECTING_SLOW);
        let still = self.on_its_way.front().is_some_and(OnItsWay::stands_still);
        if still || slow {
            let trouble = self.landing.last_trouble();
            let why = if trouble.is_empty() { "no answer" } else { &trouble };
            let brokers = self.worker.kafka.get("bootstrap.servers").unwrap_or_default();
            self.worker.fault(FaultKind::Kafka, &format!("no broker at {brokers} acknowledges: {why}"));
        } else if !down {
            self.worker.status.enter(Phase::Publishing);
            self.worker.status.clear(FaultKind::Kafka);
        }
        let due = self.probed_at.is_none_or(|at| at.elapsed() >= QUESTION_PAUSE);
        if down && due && self.probe.as_ref().is_none_or(JoinHandle::is_finished) {
            self.probe = Some(self.producer.probe());
            self.probed_at = Some(Instant::now());
        }
    }

    fn measure(&self) {
        let metrics = &self.worker.metrics;
        self.worker.age.show(self.oldest_us(), metrics);
        metrics.in_flight_rows.set(whole(self.flight.rows() as u64));
        metrics.backlog_rows.set(whole(self.flight.rows() as u64 + self.rows_left));
        let newest = self.flight.newest().unwrap_or(&self.stored).newest().xmax();
        metrics.position_lag.set(whole(newest.saturating_sub(self.stored.from.xmax())));
    }

    /// When the oldest row on its way was made.
    fn oldest_us(&self) -> Option<i64> {
        self.on_its_way.front().map(|oldest| oldest.oldest_us)
    }

    /// The id of a row on its way.
    fn id(&self, tag: Tag) -> Option<i64> {
        let piece = self.on_its_way.iter().find(|piece| piece.slot == tag.slot)?;
        piece.ids.get(tag.place).copied()
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
