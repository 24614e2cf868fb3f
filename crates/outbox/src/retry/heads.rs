//! What reads the retry topics: each record is the head of its key, and its verdict decides about the key.

use std::sync::Arc;

use chrono::Utc;
use sqlx::PgConnection;
use waybill_messaging::consumer::{Batch, BatchError, BatchHandler, ConsumerConfig, Due};
use waybill_messaging::record::Record;
use waybill_runtime::failpoints;

use super::decide::{self, Admission, Source};
use super::headers::{self, Travel};
use super::one::{self, Before, PASSES_MAX};
use super::settle::{self, Failed, Told};
use super::{KeyState, store};
use crate::dead_letters::{self, DeadLetter};
use crate::inbox::call::say;
use crate::inbox::fault::Trouble;
use crate::inbox::incoming::{Failure, usable_key};
use crate::inbox::store::{Parked, Taken, inbox_take_in_tx};
use crate::inbox::{Group, Handler, timeout};

/// Heads of one batch: each is a transaction or a few, one after the other, and all of them fit between two polls.
const HEADS_MAX: usize = 50;

/// The handler of a group's second consumer, the one that reads its retry topics ([`Self::consumer_config`]).
pub struct RetryProcessor<H>(Arc<Group<H>>);

impl<H: Handler> RetryProcessor<H> {
    pub(crate) fn new(group: Arc<Group<H>>) -> Self {
        Self(group)
    }

    /// The settings of the consumer that reads the group's retry topics for these `topics`, without prefix. It is a Kafka
    /// group of its own, `<group>.retry`, so that neither's rebalances touch the other's partitions. A record waits there
    /// until it is due by the clock of the group's database, which the group's drainer asks.
    ///
    /// `None` when there are no retry topics: then there is nothing to read.
    #[must_use]
    pub fn consumer_config(&self, bootstrap: &str, topics: &[&str]) -> Option<ConsumerConfig> {
        let this = Arc::clone(&self.0);
        let group = this.handler.group();
        let names = this.policy.topics_to_read(topics, group);
        if names.is_empty() {
            return None;
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut config = ConsumerConfig::new(bootstrap, &this.prefix, &format!("{group}.retry"), &names);
        config.batch_records_max = HEADS_MAX;
        config.due = Some(Due::new(move |record| headers::is_due(record, this.clock.now())));
        Some(config)
    }
}

impl<H: Handler> BatchHandler for RetryProcessor<H> {
    async fn handle(&self, batch: &Batch) -> Result<(), BatchError> {
        // One by one: heads are few, and of different keys.
        for record in &batch.records {
            match headers::read(record) {
                Some((first, travel)) => head(&self.0, &first, &travel).await?,
                None => foreign(&self.0, record).await?,
            }
        }
        Ok(())
    }
}

/// The error class of what lies on a retry topic without our headers. Unlike one of class `headers`, it may be a message
/// of ours, put there by hand: then a replay brings it in order.
const FOREIGN: &str = "foreign";

/// How one pass ended.
enum Settled {
    Done,
    Duplicate,
    Held,
    Failed,
}

async fn head<H: Handler>(this: &Group<H>, record: &Record, travel: &Travel) -> Result<(), BatchError> {
    let mut known: Option<Failure> = None;
    let mut faults: u16 = 0;
    let got_through = this.got_through();
    for _ in 0..PASSES_MAX {
        match pass(this, record, travel, known.as_ref()).await {
            Ok(Settled::Done) => {
                one::note(this, record.key.as_deref(), None);
                this.one_got_through();
                this.outcomes.handled.inc();
                this.drain_wanted.notify_one();
                return Ok(());
            }
            Ok(Settled::Duplicate) => {
                this.outcomes.duplicate.inc();
                return Ok(());
            }
            Ok(Settled::Held) => {
                this.outcomes.held.inc();
                return Ok(());
            }
            Ok(Settled::Failed) => {
                one::note(this, record.key.as_deref(), known.as_ref());
                return Ok(());
            }
            Err(Trouble::Infrastructure(error)) => return Err(error),
            Err(Trouble::ParkedMeanwhile) => {}
            Err(Trouble::Judged(failures)) => known = failures.into_iter().next().map(|(_, failure)| failure),
            // Once more, since it may have been two transactions in each other's way.
            Err(Trouble::Message { class, why }) => {
                faults += 1;
                known = (faults > 1).then(|| Failure::reject(class, why, faults));
            }
            Err(Trouble::TimedOut { why }) => {
                let counts = this.got_through() != got_through;
                known = Some(timeout::verdict(this, record, why, counts)?);
            }
        }
    }
    Err(one::too_many_passes())
}

async fn pass<H: Handler>(
    this: &Group<H>,
    record: &Record,
    travel: &Travel,
    known: Option<&Failure>,
) -> Result<Settled, Trouble> {
    let group = this.handler.group();
    let id = record.header(waybill_messaging::headers::CE_ID).and_then(|id| id.parse().ok());
    let key = usable_key(record).map(<[u8]>::to_vec);
    let mut tx = this.pool.begin().await.map_err(Trouble::ours)?;
    let keys = key.iter().cloned().collect();
    let taken = inbox_take_in_tx(&mut tx, group, id.into_iter().collect(), travel.hop, keys).await;
    let Taken { fresh, parked } = taken.map_err(Trouble::ours)?;
    failpoints::reach("head_taken");
    let parked = key.as_ref().and_then(|key| parked.get(key)).copied();
    let is_head = parked.is_some_and(|parked| is_head(parked, (id, travel.hop)));
    // Without an id only the key's row tells whether it was taken already.
    if fresh.is_empty() && (id.is_some() || !is_head) {
        return Ok(Settled::Duplicate);
    }
    // What is not its key's head, because somebody put it there, waits or is handled like any other record.
    let source = if is_head { Source::Head { tier: travel.tier } } else { Source::Main };
    if decide::admit(source, parked.map(|parked| parked.state)) == Admission::Hold {
        settle::hold_in_tx(this, &mut tx, &[(record, id, travel.hop)]).await?;
        tx.commit().await.map_err(Trouble::commit)?;
        return Ok(Settled::Held);
    }
    let Some(failure) = known else {
        let mut out = Vec::new();
        if let Some(failure) = one::attempt(this, &mut tx, record, &mut out).await? {
            return Err(Trouble::Judged(vec![(0, failure)]));
        }
        say(this, &mut tx, &out).await?;
        done(this, &mut tx, key.as_deref(), is_head).await?;
        failpoints::reach("head_handled");
        tx.commit().await.map_err(Trouble::commit)?;
        // Its offset is not stored, and nobody was told to drain.
        failpoints::reach("head_committed");
        return Ok(Settled::Done);
    };
    let before = Before {
        source,
        hop: travel.hop,
        attempts: travel.attempts,
        first_failed_at: Some(travel.first_failed_at),
    };
    let failed = [failed(this, record, id, before, failure)];
    let told: Told<'_> = settle::failed_in_tx(this, &mut tx, &failed, is_head).await?;
    failpoints::reach("head_failed");
    tx.commit().await.map_err(Trouble::commit)?;
    failpoints::reach("head_failed_committed");
    told.tell(this);
    Ok(Settled::Failed)
}

fn is_head(parked: Parked, appearance: (Option<uuid::Uuid>, i16)) -> bool {
    matches!(parked.state, KeyState::Retrying { .. }) && parked.head == appearance
}

async fn done<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    key: Option<&[u8]>,
    is_head: bool,
) -> Result<(), Trouble> {
    match key.filter(|_| is_head) {
        Some(key) => store::parked_drain_in_tx(conn, this.handler.group(), key).await.map_err(Trouble::ours),
        None => Ok(()),
    }
}

/// A failed record with the decision about it.
pub(crate) fn failed<'a, H: Handler>(
    this: &Group<H>,
    record: &'a Record,
    id: Option<uuid::Uuid>,
    before: Before,
    failure: &'a Failure,
) -> Failed<'a> {
    let (decision, attempts) = one::judge(this, record, before, failure);
    let first_failed_at = before.first_failed_at.unwrap_or(failure.at).min(Utc::now());
    Failed { record, id, hop: before.hop, attempts, first_failed_at, failure, decision }
}

/// A record without our headers on a retry topic: nobody of ours sent it, so it is a dead letter and no key's matter.
async fn foreign<H: Handler>(this: &Group<H>, record: &Record) -> Result<(), BatchError> {
    let why = "the retry headers are missing or wrong; only the group's own retries belong on this topic";
    let letter = DeadLetter::new(this.handler.group(), record, FOREIGN, why, 1, Utc::now());
    let written = async {
        let mut tx = this.pool.begin().await?;
        let written =
            dead_letters::insert_in_tx(&mut tx, &this.prefix, std::slice::from_ref(&letter)).await?;
        tx.commit().await?;
        Ok(written)
    };
    let written = written.await.map_err(|error: sqlx::Error| BatchError::new(error))?;
    if written.iter().any(Option::is_some) {
        this.outcomes.dead_letter.inc();
        letter.log();
    }
    Ok(())
}
