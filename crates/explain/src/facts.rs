//! What one service's own database knows of the story, as its `/facts/{correlation_id}` answers.
//!
//! Lists must be there: one that is missing would look like one that is empty. Fields that are not known here are passed
//! over, so that services may be newer.

use serde::Deserialize;
use serde_json::Value;

/// One service's part.
#[derive(Debug, Deserialize)]
pub(crate) struct Facts {
    pub(crate) service: String,
    /// How far back its outbox goes; a service of an older version does not tell.
    pub(crate) outbox_since: Option<String>,
    /// Which of the lists have more than is told.
    #[serde(default)]
    pub(crate) truncated: Vec<String>,
    pub(crate) outbox: Vec<Said>,
    pub(crate) inbox: Vec<Heard>,
    pub(crate) idempotency: Vec<Requested>,
    pub(crate) saga_log: Vec<SagaLine>,
    pub(crate) parked: Vec<ParkedKey>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    #[serde(skip)]
    pub(crate) raw: Value,
}

/// An outbox row.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    pub(crate) message_id: String,
    /// Full name.
    pub(crate) topic: String,
    pub(crate) key: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) sequence: Option<i64>,
    pub(crate) created_at: String,
    pub(crate) causation_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) retry_hop: Option<i64>,
    pub(crate) published: bool,
}

/// An inbox row.
#[derive(Debug, Deserialize)]
pub(crate) struct Heard {
    pub(crate) group: String,
    pub(crate) message_id: String,
    pub(crate) hop: i64,
    pub(crate) received_at: String,
}

/// The request that began it.
#[derive(Debug, Deserialize)]
pub(crate) struct Requested {
    pub(crate) endpoint: String,
    pub(crate) key: String,
    pub(crate) status: i64,
    pub(crate) created_at: String,
}

/// An entry of a saga's log.
#[derive(Debug, Deserialize)]
pub(crate) struct SagaLine {
    pub(crate) saga: Option<String>,
    pub(crate) at: String,
    pub(crate) entry: Value,
}

/// A key that waits.
#[derive(Debug, Deserialize)]
pub(crate) struct ParkedKey {
    pub(crate) group: String,
    pub(crate) state: String,
    pub(crate) tier: i64,
    pub(crate) due_at: Option<String>,
    pub(crate) attempts: i64,
    pub(crate) error_message: Option<String>,
    pub(crate) held_count: u64,
    pub(crate) parked_at: String,
}

/// A message that could not be handled.
#[derive(Debug, Deserialize)]
pub(crate) struct DeadLetter {
    pub(crate) id: String,
    pub(crate) group: String,
    pub(crate) state: String,
    pub(crate) message_id: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) error_class: String,
    pub(crate) error_message: String,
    pub(crate) attempts: i64,
    pub(crate) last_failed_at: String,
}

impl Facts {
    /// Reads an answer of the service `name`.
    pub(crate) fn read(name: &str, mut raw: Value) -> Result<Self, String> {
        if let Value::Object(object) = &mut raw {
            object.insert("service".to_owned(), Value::String(name.to_owned()));
        }
        let read = Self::deserialize(&raw);
        let mut facts = read.map_err(|error| {
            format!("its answer lacks what is needed ({error}): it may be of another version")
        })?;
        facts.raw = raw;
        Ok(facts)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
            && self.inbox.is_empty()
            && self.idempotency.is_empty()
            && self.saga_log.is_empty()
            && self.parked.is_empty()
            && self.dead_letters.is_empty()
    }

    /// Takes over what an answer to further message ids has in its inbox.
    pub(crate) fn heard_too(&mut self, more: Self) {
        for heard in more.inbox {
            let same = |other: &Heard| {
                (&other.group, &other.message_id, other.hop) == (&heard.group, &heard.message_id, heard.hop)
            };
            if !self.inbox.iter().any(same) {
                self.inbox.push(heard);
            }
        }
    }
}
