//! The whole story, and what is missing from it.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::not_told::{self, NotTold};
use crate::places::{NotLooked, Places};
use crate::steps::{self, Step};
use crate::story::Story;
use crate::text;
use crate::timeline::{self, Entry};

/// A story as it can be told.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// The story; for an order, the order's id.
    pub correlation_id: String,
    /// Whether every service was asked and told all of it, and every topic was looked at to its end; else what is not here
    /// may have happened.
    pub complete: bool,
    /// Services that answered.
    pub asked: Vec<String>,
    /// Those that did not, and why.
    pub not_asked: Vec<NotAsked>,
    /// What those that answered have no more, or did not tell to its end.
    pub not_told: Vec<NotTold>,
    /// The traces it went through.
    pub trace_ids: Vec<String>,
    /// Everything that happened, oldest first.
    pub timeline: Vec<Entry>,
    /// The saga's steps.
    pub steps: Vec<Step>,
    /// Whether the messages were looked for on their topics.
    pub looked_on_topics: bool,
    /// Topics that were not looked at, or not to their end, and why.
    pub not_looked_on_topics: Vec<NotLooked>,
    /// Message id and topic of what was published and is not there (any more).
    pub not_found_on_topics: Vec<(String, String)>,
    /// The services' own answers.
    pub services: Vec<Value>,
}

/// A service whose part is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NotAsked {
    /// Which one; null: every other one.
    pub service: Option<String>,
    /// Why.
    pub why: String,
    /// Whether nobody tried.
    pub by_choice: bool,
}

impl NotAsked {
    /// One that did not answer.
    pub(crate) fn away(service: &str, why: String) -> Self {
        Self { service: Some(service.to_owned()), why, by_choice: false }
    }

    /// One that nobody tried to ask.
    #[must_use]
    pub fn left_out(service: Option<&str>, why: &str) -> Self {
        Self { service: service.map(str::to_owned), why: why.to_owned(), by_choice: true }
    }
}

impl Report {
    /// Joins what was gathered. `left_out` are services that nobody tried to ask.
    #[must_use]
    pub fn new(correlation_id: &str, story: &Story, places: &Places, left_out: Vec<NotAsked>) -> Self {
        let steps = steps::of(story);
        let not_asked: Vec<NotAsked> = story.not_asked.iter().cloned().chain(left_out).collect();
        let not_told = not_told::of(correlation_id, story);
        let all_looked_at = places.looked && places.not_looked.is_empty();
        Self {
            correlation_id: correlation_id.to_owned(),
            complete: not_asked.is_empty() && not_told.is_empty() && all_looked_at,
            asked: story.asked.clone(),
            not_asked,
            not_told,
            trace_ids: story.trace_ids().into_iter().map(str::to_owned).collect(),
            timeline: timeline::of(story, places, &steps),
            steps,
            looked_on_topics: places.looked,
            not_looked_on_topics: places.not_looked.clone(),
            not_found_on_topics: places.missing(story),
            services: story.parts.iter().map(|part| part.raw.clone()).collect(),
        }
    }

    /// Whether somebody who was to be asked did not answer, or a topic could not be looked at to its end.
    #[must_use]
    pub fn could_not_look(&self) -> bool {
        self.not_asked.iter().any(|not_asked| !not_asked.by_choice) || !self.not_looked_on_topics.is_empty()
    }

    /// What was not told, a line each; empty when all was. For those who found nothing at all.
    #[must_use]
    pub fn not_told_lines(&self) -> String {
        self.not_told
            .iter()
            .map(|NotTold { service, why }| format!("\nNOT TOLD by {service}: {why}"))
            .collect()
    }

    /// The story for people: a timeline, the saga's steps, what is missing.
    #[must_use]
    pub fn text(&self) -> String {
        text::of(self)
    }
}
