//! Records sorted by what can be done with them: deliver, dead-letter, skip.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::headers;
use waybill_messaging::record::Record;

use super::fault::{chain, is_of_program};
use super::{Delivery, Handler, waves};
use crate::dead_letters::DeadLetter;

/// A batch's records, decoded.
pub(super) struct Incoming<'a, M> {
    /// What the handler is to have, in the order it is to have it once [`Incoming::arrange`] was called.
    pub(super) deliveries: Vec<Delivery<M>>,
    /// The record of each delivery.
    pub(super) records: Vec<&'a Record>,
    /// What can not be decoded.
    pub(super) broken: Vec<Broken<'a>>,
    /// How many the group has no interest in.
    pub(super) skipped: usize,
}

/// A record that is no message of ours.
pub(super) struct Broken<'a> {
    /// Known when the headers can be read: repeats of it are dropped like any message's.
    pub(super) id: Option<Uuid>,
    pub(super) record: &'a Record,
    class: &'static str,
    why: String,
    at: DateTime<Utc>,
}

impl<'a> Broken<'a> {
    fn new(record: &'a Record, id: Option<Uuid>, class: &'static str, why: String) -> Self {
        Self { id, record, class, why, at: Utc::now() }
    }

    pub(super) fn dead_letter(&self, group: &'a str) -> DeadLetter<'a> {
        DeadLetter::new(group, self.record, self.class, &self.why, 1, self.at)
    }
}

impl<'a, M> Incoming<'a, M> {
    /// Decodes everything. A payload that fails because of this program is an error for the whole batch.
    pub(super) fn sort<H: Handler<Message = M>>(
        handler: &H,
        records: &'a [Record],
    ) -> Result<Self, BatchError> {
        let mut sorted = Self {
            deliveries: Vec::with_capacity(records.len()),
            records: Vec::with_capacity(records.len()),
            broken: Vec::new(),
            skipped: 0,
        };
        for record in records {
            let envelope = match headers::decode(record) {
                Ok(envelope) => envelope,
                Err(error) => {
                    sorted.broken.push(Broken::new(record, None, "headers", chain(&error)));
                    continue;
                }
            };
            match handler.decode(&envelope.kind, record.payload.as_deref().unwrap_or_default()) {
                Ok(Some(message)) => {
                    sorted.deliveries.push(Delivery { envelope, message });
                    sorted.records.push(record);
                }
                Ok(None) => sorted.skipped += 1,
                Err(error) if is_of_program(&error) => return Err(BatchError::new(error)),
                Err(error) => {
                    sorted.broken.push(Broken::new(record, Some(envelope.id), "payload", chain(&error)));
                }
            }
        }
        Ok(sorted)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.broken.is_empty()
    }

    /// Every message id there is.
    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.deliveries.iter().map(|d| d.envelope.id).chain(self.broken.iter().filter_map(|b| b.id)).collect()
    }

    /// Keeps the first of each id that is `fresh`, drops the others and returns how many; then puts the deliveries in the
    /// order of their waves and returns each wave's length.
    pub(super) fn arrange(&mut self, mut fresh: HashSet<Uuid>) -> (usize, Vec<usize>) {
        let before = self.deliveries.len() + self.broken.len();
        let pairs = std::mem::take(&mut self.deliveries).into_iter().zip(std::mem::take(&mut self.records));
        let kept: Vec<_> = pairs.filter(|(delivery, _)| fresh.remove(&delivery.envelope.id)).collect();
        self.broken.retain(|broken| broken.id.is_none_or(|id| fresh.remove(&id)));
        let duplicates = before - kept.len() - self.broken.len();

        let numbers = waves::numbers(kept.iter().map(|(delivery, _)| delivery.envelope.subject.as_str()));
        let mut sizes = vec![0; numbers.iter().max().map_or(0, |last| last + 1)];
        numbers.iter().for_each(|wave| sizes[*wave] += 1);
        let mut placed: Vec<_> = numbers.into_iter().zip(kept).collect();
        // Stable: inside a wave, arrival order stays.
        placed.sort_by_key(|(wave, _)| *wave);
        (self.deliveries, self.records) = placed.into_iter().map(|(_, pair)| pair).unzip();
        (duplicates, sizes)
    }
}
