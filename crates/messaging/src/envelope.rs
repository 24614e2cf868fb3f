//! The envelope: what every message says about itself in text headers (CloudEvents 1.0, Kafka binary mode).

use chrono::{DateTime, Utc};
use uuid::Uuid;
use waybill_telemetry::story::Story;
use waybill_telemetry::trace::TraceContext;

/// Who or what made a message: carried on so that one order's whole story can be told.
///
/// A request at the edge makes the first one; a handler derives the next from the envelope it was given
/// ([`Envelope::as_cause`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Names the whole story (for an order: the order id); the same on every message of it.
    pub correlation_id: Uuid,
    /// The message this one answers; `None` when an HTTP command made it.
    pub causation_id: Option<Uuid>,
    /// The trace to continue; `None` starts none.
    pub trace: Option<TraceContext>,
}

impl Cause {
    /// What log lines about this carry: correlation, trace, and the message that is answered.
    #[must_use]
    pub fn story(&self) -> Story {
        Story::new(self.correlation_id, self.trace.as_ref(), self.causation_id)
    }
}

/// What is known of a message besides its key and payload. Wire form: text headers, see [`crate::headers`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `ce_id`: names this message for ever; the inbox's key. A UUIDv7, which never decides order.
    pub id: Uuid,
    /// `ce_source`: the service, e.g. `/waybill/orders`.
    pub source: String,
    /// `ce_type`: the message's name, e.g. `OrderPlaced`.
    pub kind: String,
    /// `ce_time`: when the command made it, by that service's clock; informative only.
    pub time: DateTime<Utc>,
    /// `ce_subject`: the aggregate, the same text as the record's key.
    pub subject: String,
    /// `ce_correlationid`, `ce_causationid` and `traceparent`.
    pub cause: Cause,
    /// `ce_sequence`: 1..n per topic and key, without gaps.
    pub sequence: i64,
}

impl Envelope {
    /// What log lines about this message carry: its correlation, its trace, its id. A handler of many messages says
    /// `envelope.story().tell(|| ...)` around what it does for one of them.
    #[must_use]
    pub fn story(&self) -> Story {
        Story::new(self.cause.correlation_id, self.cause.trace.as_ref(), Some(self.id))
    }

    /// The cause of whatever a handler of this message makes: same correlation, this message as causation, same trace.
    #[must_use]
    pub fn as_cause(&self) -> Cause {
        Cause {
            correlation_id: self.cause.correlation_id,
            causation_id: Some(self.id),
            trace: self.cause.trace.clone(),
        }
    }
}
