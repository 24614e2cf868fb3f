//! What a service that was asked could not tell: days of its outbox that are dropped, lists that are cut.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::facts::Facts;
use crate::story::Story;

/// A part of the story that its service does not have any more, or did not tell to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NotTold {
    /// Which service.
    pub service: String,
    /// What, and why.
    pub why: String,
}

/// Everything of this story that the services did not tell.
pub(crate) fn of(correlation_id: &str, story: &Story) -> Vec<NotTold> {
    let began = began(correlation_id);
    let of_part = |part: &Facts| {
        let cut = part.truncated.iter().map(|list| format!("of its list `{list}` only the first rows"));
        let whys: Vec<String> = dropped(part, began).into_iter().chain(cut).collect();
        whys.into_iter().map(|why| NotTold { service: part.service.clone(), why }).collect::<Vec<_>>()
    };
    story.parts.iter().flat_map(of_part).collect()
}

/// Why messages of the story may be missing from the part; `None` when its outbox goes back to before the story began.
fn dropped(part: &Facts, began: Option<DateTime<Utc>>) -> Option<String> {
    let Some(since) = &part.outbox_since else {
        return Some("it does not say how far back its outbox goes".to_owned());
    };
    let reaches = DateTime::parse_from_rfc3339(since).is_ok_and(|since| began.is_some_and(|at| since <= at));
    let why = format!("what was said before {since}, and when it was heard: its outbox goes back no further");
    (!reaches).then_some(why)
}

/// When the story began, which its id tells when it is a UUIDv7.
fn began(correlation_id: &str) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = Uuid::parse_str(correlation_id).ok()?.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}
