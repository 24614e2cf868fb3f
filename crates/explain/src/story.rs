//! Every service's part of one story, and whose part is missing.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::Value;

use crate::facts::{Facts, Said};
use crate::report::NotAsked;

/// Message ids of one question; the API takes no more.
const MESSAGE_IDS_MAX: usize = 200;

/// A service that can be asked for its facts, within a time that is its own business.
pub trait Source: Sync {
    /// The service's name.
    fn name(&self) -> &str;

    /// What it knows of the story; `message_ids` are others' messages to look for in its inbox, separated by commas.
    ///
    /// # Errors
    /// Why it could not be asked, for people.
    fn facts(
        &self,
        correlation_id: &str,
        message_ids: &str,
    ) -> impl Future<Output = Result<Value, String>> + Send;
}

/// Every service's part, as far as they could be asked.
#[derive(Debug, Default)]
pub struct Story {
    pub(crate) parts: Vec<Facts>,
    pub(crate) asked: Vec<String>,
    pub(crate) not_asked: Vec<NotAsked>,
}

impl Story {
    /// Asks every service twice: what it said, and then when it heard what the others said. One that does not answer is
    /// not asked again.
    pub async fn gather<S: Source>(sources: &[S], correlation_id: &str) -> Self {
        let mut story = Self::default();
        let mut there: Vec<&S> = Vec::new();
        for (source, answer) in ask(sources.iter(), correlation_id, "").await {
            match answer {
                Ok(part) => {
                    story.asked.push(source.name().to_owned());
                    story.parts.push(part);
                    there.push(source);
                }
                Err(why) => story.not_asked.push(NotAsked::away(source.name(), why)),
            }
        }
        let said: BTreeSet<String> = story.said().map(|(_, said)| said.message_id.clone()).collect();
        let ids: Vec<&str> = said.iter().map(String::as_str).collect();
        for (number, ids) in ids.chunks(MESSAGE_IDS_MAX).enumerate() {
            let mut still: Vec<&S> = Vec::new();
            for (source, answer) in ask(there.into_iter(), correlation_id, &ids.join(",")).await {
                match answer {
                    Ok(part) => {
                        story.takes(part, number == 0);
                        still.push(source);
                    }
                    Err(why) => {
                        story.not_asked.push(NotAsked::away(source.name(), format!("what it heard: {why}")))
                    }
                }
            }
            there = still;
        }
        story
    }

    /// Whether anybody knows anything of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Facts::is_empty)
    }

    /// Every outbox row with the service that wrote it.
    pub(crate) fn said(&self) -> impl Iterator<Item = (&Facts, &Said)> {
        self.parts.iter().flat_map(|part| part.outbox.iter().map(move |said| (part, said)))
    }

    /// The traces it went through.
    pub(crate) fn trace_ids(&self) -> BTreeSet<&str> {
        self.said().filter_map(|(_, said)| said.trace_id.as_deref()).collect()
    }

    /// A further answer: a whole one is newer than the one before, later ones only tell what else was heard.
    fn takes(&mut self, part: Facts, whole: bool) {
        let Some(known) = self.parts.iter_mut().find(|known| known.service == part.service) else { return };
        if whole {
            *known = part;
        } else {
            known.heard_too(part);
        }
    }
}

/// Asks all of them at once.
async fn ask<'a, S: Source + 'a>(
    sources: impl Iterator<Item = &'a S>,
    correlation_id: &str,
    ids: &str,
) -> Vec<(&'a S, Result<Facts, String>)> {
    let answers = sources.map(|source| async move {
        let raw = source.facts(correlation_id, ids).await;
        (source, raw.and_then(|raw| Facts::read(source.name(), raw)))
    });
    join_all(answers).await
}
