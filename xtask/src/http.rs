//! HTTP to our own services on loopback: JSON in, JSON out, every wait bounded.
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// How long one request may take, in seconds.
const REQUEST_TIMEOUT_S: u64 = 10;

static AGENT: LazyLock<ureq::Agent> = LazyLock::new(|| {
    let config = ureq::Agent::config_builder();
    // 4xx and 5xx are answers to read, not errors; a proxy has no business with loopback.
    config
        .timeout_global(Some(Duration::from_secs(REQUEST_TIMEOUT_S)))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
});

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON, when the status is one of the expected.
    pub(crate) fn json(&self, expected: &[u16]) -> Result<Value> {
        if !expected.contains(&self.status) {
            bail!("the answer is {}: {}", self.status, self.text.trim());
        }
        serde_json::from_str(&self.text)
            .with_context(|| format!("the answer is no JSON: {}", self.text.trim()))
    }
}

/// GET with an optional access token.
pub(crate) fn get(url: &str, token: Option<&str>) -> Result<Answer> {
    let mut request = AGENT.get(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let response = request.call().with_context(|| format!("GET {url} failed"))?;
    read(response, url)
}

/// POST of a JSON body under an idempotency key.
pub(crate) fn post(url: &str, token: &str, key: &str, body: &Value) -> Result<Answer> {
    let request = AGENT.post(url).header("Authorization", format!("Bearer {token}"));
    let request = request.header("Idempotency-Key", key).content_type("application/json");
    let response = request.send(body.to_string()).with_context(|| format!("POST {url} failed"))?;
    read(response, url)
}

fn read(mut response: ureq::http::Response<ureq::Body>, url: &str) -> Result<Answer> {
    let status = response.status().as_u16();
    let text =
        response.body_mut().read_to_string().with_context(|| format!("the answer of {url} broke off"))?;
    Ok(Answer { status, text })
}
