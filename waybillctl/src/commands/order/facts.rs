//! What each service's own database knows of the order.

use std::collections::BTreeSet;

use anyhow::bail;
use serde::Deserialize;
use serde_json::Value;

use crate::operator::answers::{DeadLetter, ParkedKey, SagaLine};
use crate::operator::{Service, Services, view};

/// Message ids of one question; the API takes no more.
const MESSAGE_IDS_MAX: usize = 200;

/// One service's part.
#[derive(Debug, Deserialize)]
pub(super) struct Facts {
    pub(super) service: String,
    #[serde(default)]
    pub(super) outbox: Vec<Said>,
    #[serde(default)]
    pub(super) inbox: Vec<Heard>,
    #[serde(default)]
    pub(super) idempotency: Vec<Requested>,
    #[serde(default)]
    pub(super) saga_log: Vec<SagaLine>,
    #[serde(default)]
    pub(super) parked: Vec<ParkedKey>,
    #[serde(default)]
    pub(super) dead_letters: Vec<DeadLetter>,
    #[serde(skip)]
    raw: Value,
}

/// An outbox row.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    pub(super) message_id: String,
    /// Full name.
    pub(super) topic: String,
    pub(super) key: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) sequence: Option<i64>,
    pub(super) created_at: String,
    pub(super) causation_id: Option<String>,
    pub(super) trace_id: Option<String>,
    pub(super) retry_hop: Option<i64>,
    pub(super) published: bool,
}

/// An inbox row.
#[derive(Debug, Deserialize)]
pub(super) struct Heard {
    pub(super) group: String,
    pub(super) message_id: String,
    pub(super) hop: i64,
    pub(super) received_at: String,
}

/// The request that began it.
#[derive(Debug, Deserialize)]
pub(super) struct Requested {
    pub(super) endpoint: String,
    pub(super) key: String,
    pub(super) status: i64,
    pub(super) created_at: String,
}

/// Every service's part.
pub(super) struct Story {
    pub(super) parts: Vec<Facts>,
}

impl Story {
    /// Asks every service twice: what it said, and then when it heard what the others said.
    pub(super) async fn gather(services: &Services, order: &str) -> anyhow::Result<Self> {
        let first = services.each(|service| facts(service, order, String::new())).await?;
        let said: BTreeSet<&str> = first
            .iter()
            .flat_map(|(_, part)| part.outbox.iter().map(|said| said.message_id.as_str()))
            .collect();
        let ids: Vec<&str> = said.iter().copied().collect();
        let mut story: Option<Self> = None;
        for ids in ids.chunks(MESSAGE_IDS_MAX) {
            let ids = ids.join(",");
            let ids = &ids;
            let parts = services.each(|service| facts(service, order, ids.clone())).await?;
            let parts = parts.into_iter().map(|(_, part)| part).collect();
            match &mut story {
                None => story = Some(Self { parts }),
                Some(story) => story.heard_too(parts),
            }
        }
        let story =
            story.unwrap_or_else(|| Self { parts: first.into_iter().map(|(_, part)| part).collect() });
        if story.parts.iter().all(Facts::is_empty) {
            let names: Vec<&str> = services.all().iter().map(Service::name).collect();
            bail!("{} know nothing of order {order}: check the id", names.join(", "));
        }
        Ok(story)
    }

    /// Takes over what an answer to further message ids has in its inbox.
    fn heard_too(&mut self, parts: Vec<Facts>) {
        for (known, more) in self.parts.iter_mut().zip(parts) {
            for heard in more.inbox {
                let same = |other: &Heard| {
                    (&other.group, &other.message_id, other.hop)
                        == (&heard.group, &heard.message_id, heard.hop)
                };
                if !known.inbox.iter().any(same) {
                    known.inbox.push(heard);
                }
            }
        }
    }

    /// Every outbox row with the service that wrote it.
    pub(super) fn said(&self) -> impl Iterator<Item = (&Facts, &Said)> {
        self.parts.iter().flat_map(|part| part.outbox.iter().map(move |said| (part, said)))
    }

    /// The traces it went through.
    pub(super) fn trace_ids(&self) -> BTreeSet<&str> {
        self.said().filter_map(|(_, said)| said.trace_id.as_deref()).collect()
    }

    /// The services' own answers.
    pub(super) fn raw(&self) -> Vec<&Value> {
        self.parts.iter().map(|part| &part.raw).collect()
    }
}

impl Facts {
    fn is_empty(&self) -> bool {
        self.outbox.is_empty()
            && self.inbox.is_empty()
            && self.idempotency.is_empty()
            && self.saga_log.is_empty()
            && self.parked.is_empty()
            && self.dead_letters.is_empty()
    }
}

async fn facts(service: &Service, order: &str, ids: String) -> anyhow::Result<Facts> {
    let query: Vec<_> = if ids.is_empty() { Vec::new() } else { vec![("message_ids", ids)] };
    let raw: Value = service.get(&["facts", order], &query).await?;
    let raw = service.named(raw);
    let mut part: Facts = view(&raw)?;
    part.raw = raw;
    Ok(part)
}
