//! Everything that happened, as entries in their order.

use std::collections::HashMap;

use chrono::DateTime;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::facts::{Facts, SagaLine, Said};
use crate::places::Places;
use crate::steps::{Step, between_ms, word};
use crate::story::Story;

/// What kind of thing happened. In this order where the times are the same: what is one transaction has one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A request that was accepted.
    Command,
    /// A group took a message.
    MessageIn,
    /// The saga moved.
    SagaStep,
    /// A message was said: written into an outbox.
    MessageOut,
    /// A message came onto its topic.
    Published,
    /// A message waits for another try.
    Retry,
    /// A message could not be handled.
    DeadLetter,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Entry {
    /// RFC 3339.
    pub at: String,
    /// What kind of thing.
    pub what: What,
    /// Where.
    pub service: String,
    /// In a sentence.
    pub title: String,
    /// Ids, numbers and places, by the kind of thing.
    pub detail: Value,
    /// Its place in the order: microseconds since the epoch.
    #[serde(skip)]
    #[schema(ignore)]
    order: i64,
}

/// Oldest first.
pub(crate) fn of(story: &Story, places: &Places, steps: &[Step]) -> Vec<Entry> {
    // The first one counts: the main topic's row of a message is older than those of its retries.
    let mut said: HashMap<&str, &Said> = HashMap::new();
    for (_, row) in story.said() {
        said.entry(row.message_id.as_str()).or_insert(row);
    }
    let mut entries = messages_out(story, places);
    for part in &story.parts {
        entries.extend(part.idempotency.iter().map(|request| {
            let title = format!("{} accepted: {}", request.endpoint, request.status);
            let detail = json!({ "idempotency_key": request.key, "status": request.status });
            part.entry(&request.created_at, What::Command, title, detail)
        }));
        entries.extend(part.inbox.iter().filter_map(|heard| {
            let message = said.get(heard.message_id.as_str())?;
            let kind = message.kind.as_deref().unwrap_or("a message");
            let hop = if heard.hop > 0 { format!(", appearance {}", heard.hop) } else { String::new() };
            let after = between_ms(&message.created_at, &heard.received_at);
            let after = after.map(|ms| format!(", {ms} ms after it was said")).unwrap_or_default();
            let title = format!("group {} takes {kind}{hop}{after}", heard.group);
            let detail = json!({ "message_id": heard.message_id, "group": heard.group, "hop": heard.hop });
            Some(part.entry(&heard.received_at, What::MessageIn, title, detail))
        }));
        entries.extend(part.saga_log.iter().map(|line| saga_step(part, line, steps)));
        entries.extend(part.parked.iter().map(|parked| {
            let error = parked.error_message.as_deref().unwrap_or("not told");
            let title = format!(
                "group {} has the key {}: tier {}, {} tries, {} held behind it; {error}",
                parked.group, parked.state, parked.tier, parked.attempts, parked.held_count
            );
            let detail = json!({ "group": parked.group, "state": parked.state, "due_at": parked.due_at });
            part.entry(&parked.parked_at, What::Retry, title, detail)
        }));
        entries.extend(part.dead_letters.iter().map(|letter| {
            let kind = letter.kind.as_deref().unwrap_or("a message");
            let title = format!(
                "group {} could not handle {kind} ({}): {}: {}",
                letter.group, letter.state, letter.error_class, letter.error_message
            );
            let detail = json!({ "dead_letter": letter.id, "message_id": letter.message_id, "attempts": letter.attempts });
            part.entry(&letter.last_failed_at, What::DeadLetter, title, detail)
        }));
    }
    entries.sort_by_key(|entry| (entry.order, entry.what));
    entries
}

fn micros(at: &str) -> i64 {
    DateTime::parse_from_rfc3339(at).map(|time| time.timestamp_micros()).unwrap_or_default()
}

/// Each outbox row, and where it lies on its topic.
fn messages_out(story: &Story, places: &Places) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    for (part, said) in story.said() {
        let nth = seen.entry((&said.topic, &said.message_id)).or_default();
        let place = places.of(said, *nth);
        *nth += 1;
        let kind = said.kind.as_deref().unwrap_or("a message");
        let hop = said.retry_hop.map(|hop| format!(" (appearance {hop})")).unwrap_or_default();
        let waits = if said.published { "" } else { ", not published yet" };
        let detail = json!({
            "message_id": said.message_id, "topic": said.topic, "sequence": said.sequence, "key": said.key,
            "causation_id": said.causation_id, "trace_id": said.trace_id, "published": said.published,
            "place": place,
        });
        let title = format!("says {kind}{hop} to {}{waits}", said.topic);
        entries.push(part.entry(&said.created_at, What::MessageOut, title, detail));
        if let Some((place, time)) = place.and_then(|place| Some((place, place.time.as_deref()?))) {
            let title = format!("{kind}{hop} is at {}[{}]@{}", place.topic, place.partition, place.offset);
            let detail = json!({ "message_id": said.message_id, "place": place });
            let mut entry = part.entry(time, What::Published, title, detail);
            // Kafka counts milliseconds: without their fraction, a message would be there before it was said.
            entry.order = entry.order.max(micros(&said.created_at));
            entries.push(entry);
        }
    }
    entries
}

fn saga_step(part: &Facts, line: &SagaLine, steps: &[Step]) -> Entry {
    let saga = line.saga.as_deref().unwrap_or("saga");
    let input = &line.entry["input"];
    let mut title = match (word(input).as_str(), &input["reply"]) {
        ("reply", reply) => {
            let step = steps.iter().find(|step| {
                step.saga == saga
                    && step.answered_at.as_ref() == Some(&line.at)
                    && step.step == word(&reply["step"])
            });
            let latency = step.and_then(|step| step.latency_ms).map(|ms| format!(" after {ms} ms"));
            let latency = latency.unwrap_or_default();
            format!(
                "{saga}: {} ({}) is {}{latency}",
                word(&reply["step"]),
                word(&reply["phase"]),
                shown(&reply["outcome"])
            )
        }
        (what, _) => format!("{saga}: {what}"),
    };
    if !line.entry["ignored"].is_null() {
        title.push_str(&format!(", ignored: {}", shown(&line.entry["ignored"])));
    }
    for did in line.entry["did"].as_array().into_iter().flatten() {
        title.push_str(&match word(did).as_str() {
            "sent" => {
                let sent = &did["sent"];
                let attempt = sent["attempt"].as_u64().filter(|attempt| *attempt > 1);
                let attempt = attempt.map(|attempt| format!(", attempt {attempt}")).unwrap_or_default();
                format!("; then {} ({}){attempt}", word(&sent["step"]), word(&sent["phase"]))
            }
            _ => format!("; {}", shown(did)),
        });
    }
    part.entry(&line.at, What::SagaStep, title, line.entry.clone())
}

/// A part of the log in a line: `done`, `refused {"reason":"..."}`.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(object) if object.len() == 1 => {
            object.iter().map(|(name, inner)| format!("{name} {inner}")).collect()
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Facts {
    fn entry(&self, at: &str, what: What, title: String, detail: Value) -> Entry {
        Entry { at: at.to_owned(), what, service: self.service.clone(), title, detail, order: micros(at) }
    }
}
