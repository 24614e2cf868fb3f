//! The saga's steps: how often each was tried, and how long its answer took.

use chrono::DateTime;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::story::Story;

/// A step or its compensation, from its first command to its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Step {
    /// Which saga.
    pub saga: String,
    /// Its step.
    pub step: String,
    /// The step or its compensation, in the saga's words.
    pub phase: String,
    /// How often its command was sent.
    pub attempts: u64,
    /// When it was sent first, RFC 3339.
    pub sent_at: String,
    /// When its answer was heard.
    pub answered_at: Option<String>,
    /// From the first command to the answer.
    pub latency_ms: Option<i64>,
    /// What the answer says.
    pub outcome: Option<Value>,
}

/// Every step of every saga, in the order in which they began.
pub(crate) fn of(story: &Story) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in story.parts.iter().flat_map(|part| &part.saga_log) {
        let saga = line.saga.as_deref().unwrap_or_default();
        let reply = &line.entry["input"]["reply"];
        if reply.is_object() && line.entry["ignored"].is_null() {
            let answered =
                steps.iter_mut().rev().find(|step| step.is(saga, reply) && step.answered_at.is_none());
            if let Some(step) = answered {
                step.answered_at = Some(line.at.clone());
                step.latency_ms = between_ms(&step.sent_at, &line.at);
                step.outcome = Some(reply["outcome"].clone());
            }
        }
        let did = line.entry["did"].as_array().into_iter().flatten();
        for sent in did.map(|did| &did["sent"]).filter(|sent| sent.is_object()) {
            let attempt = sent["attempt"].as_u64().unwrap_or(1);
            match steps.iter_mut().rev().find(|step| step.is(saga, sent)) {
                Some(step) if attempt > 1 => {
                    step.attempts = attempt;
                    step.answered_at = None;
                }
                _ => steps.push(Step {
                    saga: saga.to_owned(),
                    step: word(&sent["step"]),
                    phase: word(&sent["phase"]),
                    attempts: attempt,
                    sent_at: line.at.clone(),
                    answered_at: None,
                    latency_ms: None,
                    outcome: None,
                }),
            }
        }
    }
    steps
}

impl Step {
    fn is(&self, saga: &str, of: &Value) -> bool {
        self.saga == saga && self.step == word(&of["step"]) && self.phase == word(&of["phase"])
    }
}

/// A name in the log: a text, or the one member of an object.
pub(crate) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => object.keys().next().cloned().unwrap_or_default(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Milliseconds from one time to another.
pub(crate) fn between_ms(from: &str, to: &str) -> Option<i64> {
    let from = DateTime::parse_from_rfc3339(from).ok()?;
    Some((DateTime::parse_from_rfc3339(to).ok()? - from).num_milliseconds())
}
