//! HTTP to our own services on loopback: JSON in, JSON out, every wait bounded.
use anyhow::{Context as _, Result, bail};
use minreq::Request;
use serde_json::Value;

/// How long one request may take, in seconds.
const REQUEST_TIMEOUT_S: u64 = 10;

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
    let mut request = minreq::get(url);
    if let Some(token) = token {
        request = request.with_header("Authorization", format!("Bearer {token}"));
    }
    answer(request).with_context(|| format!("GET {url} failed"))
}

/// POST of a JSON body under an idempotency key.
pub(crate) fn post(url: &str, token: &str, key: &str, body: &Value) -> Result<Answer> {
    let request = minreq::post(url).with_header("Authorization", format!("Bearer {token}"));
    let request = request.with_header("Idempotency-Key", key).with_header("Content-Type", "application/json");
    answer(request.with_body(body.to_string())).with_context(|| format!("POST {url} failed"))
}

/// 4xx and 5xx are answers to read, not errors.
fn answer(request: Request) -> Result<Answer> {
    let response = request.with_timeout(REQUEST_TIMEOUT_S).send()?;
    let text = response.as_str().context("the answer is no text")?.to_owned();
    Ok(Answer { status: response.status_code, text })
}
