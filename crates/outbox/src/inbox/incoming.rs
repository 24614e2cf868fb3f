//! Records decoded, and sorted by what can be done with them: deliver, hold, retry or dead-letter.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::headers;
use waybill_messaging::record::Record;

use super::fault::{chain, is_of_program};
use super::store::Parked;
use super::{Delivery, Handler, Verdict};
use crate::append::KEY_BYTES_MAX;
use crate::retry::decide::{self, Admission, Decision, Judgement, Source, Tried};
use crate::retry::{KeyState, Policy};

/// How often a message was tried when it becomes a dead letter by a fault: with others, and alone.
const FAULT_ATTEMPTS: u16 = 2;

/// A batch's records, in the order of their arrival.
pub(crate) struct Incoming<'a, M> {
    pub(crate) items: Vec<Item<'a, M>>,
    /// How many the group has no interest in.
    pub(crate) skipped: usize,
}

/// A record and what is known of it.
pub(crate) struct Item<'a, M> {
    pub(crate) record: &'a Record,
    /// Known when the headers can be read.
    pub(crate) id: Option<Uuid>,
    /// Absent when it could not be decoded, when nobody wants it, and while the handler has it.
    pub(crate) delivery: Option<Delivery<M>>,
    /// Why it is not delivered (any more): it could not be decoded, or the handler said so.
    pub(crate) failure: Option<Failure>,
}

/// Why a message was not handled, and whether it may be later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) judgement: Judgement,
    pub(crate) class: &'static str,
    pub(crate) why: String,
    /// How often it was tried until it was said.
    pub(crate) attempts: u16,
    pub(crate) at: DateTime<Utc>,
}

impl Failure {
    pub(crate) fn reject(class: &'static str, why: String, attempts: u16) -> Self {
        Self { judgement: Judgement::Reject, class, why, attempts, at: Utc::now() }
    }

    /// Of a message that failed alone, after it had with others.
    pub(crate) fn at_fault(class: &'static str, why: String) -> Self {
        Self::reject(class, why, FAULT_ATTEMPTS)
    }

    /// Of a message whose statement timed out while it was alone. An attempt that does not count leaves the message as many
    /// as it had.
    pub(crate) fn timed_out(why: String, counts: bool) -> Self {
        let class = "statement_timeout";
        Self { judgement: Judgement::Retry, class, why, attempts: u16::from(counts), at: Utc::now() }
    }

    /// Of a verdict; `None` when it is done.
    pub(crate) fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Done => None,
            Verdict::Retry { class, why } => {
                Some(Self { judgement: Judgement::Retry, class, why, attempts: 1, at: Utc::now() })
            }
            Verdict::Reject { class, why } => Some(Self::reject(class, why, 1)),
        }
    }
}

/// What is done with the items of a batch: their places, in order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) deliver: Vec<usize>,
    pub(crate) hold: Vec<usize>,
    pub(crate) failed: Vec<(usize, Decision)>,
}

impl<'a, M> Item<'a, M> {
    /// Decodes a record; `None` when the group has no interest in it. A payload that fails because of this program is an
    /// error for the whole batch.
    pub(crate) fn decode<H: Handler<Message = M>>(
        handler: &H,
        record: &'a Record,
    ) -> Result<Option<Self>, BatchError> {
        let envelope = match headers::decode(record) {
            Ok(envelope) => envelope,
            Err(error) => {
                let failure = Some(Failure::reject("headers", chain(&error), 1));
                return Ok(Some(Self { record, id: None, delivery: None, failure }));
            }
        };
        let id = Some(envelope.id);
        let payload = record.payload.as_deref().unwrap_or_default();
        match envelope.story().tell(|| handler.decode(&envelope.kind, payload)) {
            Ok(Some(message)) => {
                Ok(Some(Self { record, id, delivery: Some(Delivery { envelope, message }), failure: None }))
            }
            Ok(None) => Ok(None),
            Err(error) if is_of_program(&error) => Err(BatchError::new(error)),
            Err(error) => {
                let failure = Some(Failure::reject("payload", chain(&error), 1));
                Ok(Some(Self { record, id, delivery: None, failure }))
            }
        }
    }

    /// The key it is parked by; `None` when it has none that can be.
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        usable_key(self.record)
    }
}

/// The key of a record, when it can be parked.
pub(crate) fn usable_key(record: &Record) -> Option<&[u8]> {
    record.key.as_deref().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
}

impl<'a, M> Incoming<'a, M> {
    /// Decodes everything.
    pub(crate) fn sort<H: Handler<Message = M>>(
        handler: &H,
        records: &'a [Record],
    ) -> Result<Self, BatchError> {
        let mut sorted = Self { items: Vec::with_capacity(records.len()), skipped: 0 };
        for record in records {
            match Item::decode(handler, record)? {
                Some(item) => sorted.items.push(item),
                None => sorted.skipped += 1,
            }
        }
        Ok(sorted)
    }

    /// Every message id there is.
    pub(crate) fn ids(&self) -> Vec<Uuid> {
        self.items.iter().filter_map(|item| item.id).collect()
    }

    /// Every key that can be parked, once.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let keys: HashSet<&[u8]> = self.items.iter().filter_map(Item::key).collect();
        keys.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// Keeps the first of each id that is `fresh`, and what has no id; drops the others and returns how many.
    pub(crate) fn keep_fresh(&mut self, mut fresh: HashSet<Uuid>) -> usize {
        let before = self.items.len();
        self.items.retain(|item| item.id.is_none_or(|id| fresh.remove(&id)));
        before - self.items.len()
    }

    /// Decides about each item, in the order of arrival: what fails parks its key for those behind it.
    pub(crate) fn plan(&self, policy: &Policy, parked: &HashMap<Vec<u8>, Parked>) -> Plan {
        let mut keys: HashMap<&[u8], KeyState> =
            parked.iter().map(|(key, parked)| (key.as_slice(), parked.state)).collect();
        let mut plan = Plan::default();
        for (place, item) in self.items.iter().enumerate() {
            let key = item.key();
            let state = key.and_then(|key| keys.get(key).copied());
            // What has no readable headers is no message of the key, whatever its bytes: it neither waits nor blocks.
            if decide::admit(Source::Main, state) == Admission::Hold && item.id.is_some() {
                plan.hold.push(place);
            } else if let Some(failure) = &item.failure {
                let tried = Tried { attempts: failure.attempts, hop: 0 };
                let mut decision = decide::judge(policy, Source::Main, tried, failure.judgement);
                if key.is_none() || item.id.is_none() {
                    decision.key = None;
                } else if let (Some(key), Some(state)) = (key, decision.key) {
                    keys.insert(key, state);
                }
                plan.failed.push((place, decision));
            } else {
                plan.deliver.push(place);
            }
        }
        plan
    }
}
