//! Other services' operator listeners, which a whole story is asked of: read only, with the operator's own token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde_json::Value;
use waybill_runtime::config::Environment;

use crate::operator::chain;

/// How long one answer of a peer may take: it reads some indexes, and an operator waits.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Largest answer: some thousand rows with their texts.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// `WAYBILL_OPERATOR_PEERS`.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    all: Arc<[Peer]>,
}

/// One of them.
pub struct Peer {
    name: String,
    url: Url,
    client: Client,
}

impl Peers {
    /// Reads `NAME=URL,...`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let named = text.split(',').map(str::trim).filter(|named| !named.is_empty());
        let all = named.map(Peer::parse).collect::<Result<Vec<Peer>, String>>()?;
        Ok(Self { all: all.into() })
    }

    pub(crate) fn read(env: &mut Environment) -> Self {
        Self::parse(&env.text("WAYBILL_OPERATOR_PEERS", "")).unwrap_or_else(|why| {
            env.mistake("WAYBILL_OPERATOR_PEERS", why);
            Self::default()
        })
    }

    /// All but the service itself: every service may have the same setting.
    pub(crate) fn without(&self, service: &str) -> impl Iterator<Item = &Peer> {
        self.all.iter().filter(move |peer| peer.name != service)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.url)
    }
}

impl Peer {
    fn parse(named: &str) -> Result<Self, String> {
        const FORM: &str =
            "write NAME=URL, such as inventory=http://127.0.0.1:9084, several separated by commas";
        let (name, url) = named.split_once('=').ok_or_else(|| format!("{named:?}: {FORM}"))?;
        let parsed = Url::parse(url.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url =
            parsed.filter(|url| url.host().is_some()).ok_or_else(|| format!("{}: {FORM}", name.trim()))?;
        // It is told in answers and in the log. What opens a peer is the operator's token.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("{}: leave user and password out of its URL", name.trim()));
        }
        // A redirect would carry the operator's token to whom nobody named.
        let client = Client::builder().timeout(ANSWER_MAX).redirect(Policy::none()).build();
        let client = client.map_err(|error| format!("no HTTP client can be made: {error}"))?;
        Ok(Self { name: name.trim().to_owned(), url, client })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its facts of a story, or why they are not to be had.
    pub(crate) async fn facts(
        &self,
        token: &HeaderValue,
        correlation_id: &str,
        message_ids: &str,
    ) -> Result<Value, String> {
        let (name, url) = (&self.name, &self.url);
        let away = |why: String| format!("{name} can not be asked at {url}: {why}");
        let mut place = url.clone();
        let segments = place.path_segments_mut();
        let mut segments = segments.map_err(|()| away("the URL takes no path".to_owned()))?;
        segments.pop_if_empty().extend(["operator", "v1", "facts", correlation_id]);
        drop(segments);
        if !message_ids.is_empty() {
            place.query_pairs_mut().append_pair("message_ids", message_ids);
        }
        let request = self.client.get(place).header(AUTHORIZATION, token);
        let mut answer = request.send().await.map_err(|error| away(chain(&error.without_url())))?;
        if !answer.status().is_success() {
            return Err(away(format!("it answers {}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| away(chain(&error.without_url())))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(away(format!("its answer is over {ANSWER_BYTES_MAX} bytes")));
            }
        }
        serde_json::from_slice(&body).map_err(|error| away(format!("its answer is no JSON: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named_and_a_service_is_no_peer_of_itself() {
        let peers = Peers::parse("orders=http://h:1, inventory=https://h:2/,").unwrap();
        let names = |service| peers.without(service).map(Peer::name).collect::<Vec<_>>();
        assert_eq!(names("orders"), ["inventory"]);
        assert_eq!(names("payments"), ["orders", "inventory"]);
        for wrong in ["orders", "orders=h:1", "orders=ftp://h", "a=http://h,b"] {
            assert!(Peers::parse(wrong).is_err(), "{wrong}");
        }
        let why = Peers::parse("orders=http://me:secret@h").unwrap_err();
        assert!(why.starts_with("orders: leave user and password out") && !why.contains("secret"), "{why}");
    }
}
