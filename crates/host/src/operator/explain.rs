//! `/explain/{correlation_id}`: the whole story, of this service, its peers and the topics.
//!
//! The operators' plane alone: reads, with the caller's own token, which each peer verifies itself. No command is ever
//! given this way (docs/adr/0012-services-ask-each-other-for-operators-only.md).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::sync::Semaphore;
use uuid::Uuid;
use waybill_explain::{Limits, NotAsked, Places, Report, Source, Story};
use waybill_http::ApiError;
use waybill_http::json::Json;
use waybill_http::openapi::ReadRefusals;
use waybill_http::params::Path;
use waybill_messaging::reader::{Patience, Reader};

use super::{Operated, facts};
use crate::peers::{Peer, Peers};

/// Stories that are told at once: each reads a few partitions, in a process that has other work.
const AT_ONCE_MAX: usize = 4;
/// How far a story's messages are looked for: well within the request's own time, peers included.
const LIMITS: Limits = Limits { records: 200_000, time: Duration::from_secs(20) };
/// How long the brokers may be silent.
const PATIENCE: Patience = Patience { request: Duration::from_secs(5), silence: Duration::from_secs(5) };
/// Seconds after which one who came in a crowd may try again.
const CROWD_RETRY_AFTER_S: u32 = 5;

/// What a whole story is told from, beside the service's own database.
#[derive(Debug, Clone)]
pub struct Explainer {
    peers: Peers,
    brokers: String,
    places: Arc<Semaphore>,
}

impl Explainer {
    /// `brokers` are asked where messages lie.
    #[must_use]
    pub fn new(peers: Peers, brokers: &str) -> Self {
        Self { peers, brokers: brokers.to_owned(), places: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }

    async fn places(&self, story: &Story) -> Places {
        let reader = match Reader::new(&self.brokers, "waybill-explain", PATIENCE) {
            Ok(reader) => reader,
            Err(error) => return Places::none(story, &error.to_string()),
        };
        let places = Places::find(&reader, story, LIMITS).await;
        // A client may hang for a while when it is dropped and its brokers are away.
        tokio::task::spawn_blocking(move || drop(reader));
        places
    }
}

/// This service or a peer of it.
enum Asked<'a> {
    Own(&'a Operated),
    Peer(&'a Peer, &'a HeaderValue),
}

impl Source for Asked<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Own(operated) => operated.service,
            Self::Peer(peer, _) => peer.name(),
        }
    }

    async fn facts(&self, correlation_id: &str, message_ids: &str) -> Result<Value, String> {
        match self {
            Self::Own(operated) => {
                let id = correlation_id.parse().map_err(|_| "the id is no UUID".to_owned())?;
                let body = facts::body(operated, id, message_ids).await.map_err(|refusal| refusal.message)?;
                serde_json::to_value(body).map_err(|error| error.to_string())
            }
            Self::Peer(peer, token) => peer.facts(token, correlation_id, message_ids).await,
        }
    }
}

/// One story told whole: what this service and its peers know of it, and where its messages lie on Kafka.
///
/// For an order, its order id is the correlation id. The peers are those of `WAYBILL_OPERATOR_PEERS`; one that does not
/// answer in time is named in `not_asked`, what one has no more (it keeps its messages for some days) in `not_told`.
/// `Accept: text/plain` gives a timeline for people.
#[utoipa::path(get, path = "/operator/v1/explain/{correlation_id}", tag = "facts", operation_id = "explain",
    params(("correlation_id" = Uuid, Path, description = "The story.")),
    responses((status = 200, description = "The story, and what could not be looked at.",
               content((Report = "application/json"), (String = "text/plain"))), ReadRefusals))]
pub(super) async fn explain(
    State(operated): State<Operated>,
    Path(correlation_id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let explainer = &operated.explainer;
    let Ok(_place) = explainer.places.try_acquire() else {
        return Err(ApiError::unavailable("too many stories are being told", CROWD_RETRY_AFTER_S));
    };
    // `operators_only` has let it in, so it is there.
    let token = headers.get(AUTHORIZATION).cloned();
    let mut token =
        token.ok_or_else(|| ApiError::unauthorized("token_missing", "an access token is needed"))?;
    token.set_sensitive(true);
    let peers = explainer.peers.without(operated.service).map(|peer| Asked::Peer(peer, &token));
    let asked: Vec<Asked<'_>> = std::iter::once(Asked::Own(&operated)).chain(peers).collect();
    let id = correlation_id.to_string();
    let story = Story::gather(&asked, &id).await;
    let places = explainer.places(&story).await;
    let nobody_else = NotAsked::left_out(None, "WAYBILL_OPERATOR_PEERS names none");
    let left_out = if asked.len() == 1 { vec![nobody_else] } else { Vec::new() };
    let report = Report::new(&id, &story, &places, left_out);
    if story.is_empty() && !report.could_not_look() {
        let (asked, not_told) = (report.asked.join(", "), report.not_told_lines());
        return Err(ApiError::not_found("not_found", format!("{asked} know nothing of {id}{not_told}")));
    }
    if wants_text(&headers) {
        let kind = (CONTENT_TYPE, "text/plain; charset=utf-8");
        return Ok(([kind], report.text() + "\n").into_response());
    }
    Ok(Json(report).into_response())
}

/// Whether `Accept` names plain text and not JSON.
fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("text/plain") && !accept.contains("application/json")
}
