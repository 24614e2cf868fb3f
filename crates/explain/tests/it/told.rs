//! Services that tell what a test says they know.

use std::sync::Mutex;

use serde_json::{Value, json};
use waybill_explain::Source;

pub(crate) const STORY: &str = "018f4e5c-7d1a-7c3b-9e2d-5a6b7c8d9e0f";
pub(crate) const RESERVE: &str = "01980000-0000-7000-8000-0000000000e1";
pub(crate) const RESERVED: &str = "01980000-0000-7000-8000-0000000000e2";

/// One service, and what it was asked.
pub(crate) struct Told {
    name: &'static str,
    story: &'static str,
    facts: Value,
    /// From this question on, counted from 0, it does not answer.
    away_from: usize,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Told {
    pub(crate) fn new(name: &'static str, facts: Value) -> Self {
        Self { name, story: STORY, facts, away_from: usize::MAX, asked: Mutex::default() }
    }

    /// With another value of a field.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.facts[field] = value;
        self
    }

    /// Asked for another story.
    pub(crate) fn of(self, story: &'static str) -> Self {
        Self { story, ..self }
    }

    pub(crate) fn away_from(self, question: usize) -> Self {
        Self { away_from: question, ..self }
    }
}

impl Source for Told {
    fn name(&self) -> &str {
        self.name
    }

    async fn facts(&self, correlation_id: &str, message_ids: &str) -> Result<Value, String> {
        assert_eq!(correlation_id, self.story);
        let mut asked = self.asked.lock().unwrap();
        asked.push(message_ids.to_owned());
        if asked.len() > self.away_from {
            Err(format!("{} is away", self.name))
        } else {
            Ok(self.facts.clone())
        }
    }
}

pub(crate) fn nothing() -> Value {
    json!({"outbox_since": "2024-05-01T00:00:00Z", "truncated": [], "outbox": [], "inbox": [], "idempotency": [], "sagas": [], "saga_log": [], "parked": [], "dead_letters": []})
}

pub(crate) fn said(id: &str, topic: &str, kind: &str, at: &str) -> Value {
    json!({"id": 1, "message_id": id, "topic": topic, "key": STORY, "kind": kind, "sequence": 1, "created_at": at,
        "causation_id": null, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "retry_hop": null, "published": true})
}

/// Orders asks for stock twice, inventory answers the second time; payments has the key parked and a dead letter.
pub(crate) fn services(prefix: &str) -> [Told; 3] {
    let mut orders = nothing();
    let commands = format!("{prefix}inventory.commands");
    orders["outbox"] = json!([said(RESERVE, &commands, "ReserveStock", "2026-05-04T10:00:00.000001Z")]);
    let sent = |attempt: u32| {
        json!([{"sent": {"step": "reserve", "phase": "act", "attempt": attempt, "message_id": RESERVE,
            "kind": "ReserveStock", "topic": "inventory.commands"}}])
    };
    let reply = json!({"reply": {"step": "reserve", "phase": "act", "outcome": "done"}});
    orders["saga_log"] = json!([
        {"saga": "place-order", "number": 1, "at": "2026-05-04T10:00:00.000001Z",
            "entry": {"input": {"started": {"version": 1}}, "did": sent(1)}},
        {"saga": "place-order", "number": 2, "at": "2026-05-04T10:00:01Z", "entry": {"input": "due", "did": sent(2)}},
        {"saga": "place-order", "number": 3, "at": "2026-05-04T10:00:02.5Z", "entry": {"input": reply, "did": []}},
    ]);
    let mut inventory = nothing();
    inventory["inbox"] = json!([{"group": "inventory", "message_id": RESERVE, "hop": 1, "received_at": "2026-05-04T10:00:02Z"}]);
    let events = format!("{prefix}inventory.events");
    inventory["outbox"] = json!([said(RESERVED, &events, "StockReserved", "2026-05-04T10:00:02Z")]);
    let mut payments = nothing();
    payments["parked"] = json!([{"group": "payments", "key": STORY, "state": "blocked", "tier": 3, "due_at": null,
        "attempts": 4, "error_class": "on_purpose", "error_message": "no", "held_count": 2, "held_bytes": 10,
        "parked_at": "2026-05-04T10:00:03Z"}]);
    payments["dead_letters"] = json!([{"id": "01980000-0000-7000-8000-0000000000d1", "group": "payments",
        "state": "open", "message_id": RESERVE, "kind": "CapturePayment", "error_class": "on_purpose",
        "error_message": "no", "attempts": 4, "last_failed_at": "2026-05-04T10:00:04Z"}]);
    [Told::new("orders", orders), Told::new("inventory", inventory), Told::new("payments", payments)]
}
