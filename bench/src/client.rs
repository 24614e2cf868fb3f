//! An HTTP client that costs little: plain HTTP/1.1 over kept connections to one address.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest wait for one answer: past it the server hangs, and the request counts as failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of one request: a kept connection may have been closed by the server meanwhile. The idempotency key makes
/// the second try harmless.
const TRIES_MAX: usize = 2;

type Connection = SendRequest<Full<Bytes>>;

/// A server's address with the connections that are free at the moment.
#[derive(Debug)]
pub struct Client {
    authority: String,
    idle: Mutex<Vec<Connection>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// A request with everything that tells it from others.
#[derive(Debug, Clone)]
pub struct Post<'a> {
    /// Path, from `/`.
    pub path: &'a str,
    /// The access token.
    pub token: &'a str,
    /// The `Idempotency-Key`.
    pub key: &'a str,
    /// The JSON text.
    pub body: Bytes,
}

impl Client {
    /// For a process's `url` (`http://host:port`); connects when it is first used.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { authority, idle: Mutex::default() }
    }

    /// Sends a request and waits for its whole answer.
    ///
    /// # Errors
    /// When the server does not answer within 30 s.
    pub async fn post(&self, post: Post<'_>) -> Result<Answer> {
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let tried = tokio::time::timeout(ANSWER_TIMEOUT, self.try_post(&post)).await;
            match tried.with_context(|| format!("no answer within {ANSWER_TIMEOUT:?}"))? {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("not sent")))
    }

    async fn try_post(&self, post: &Post<'_>) -> Result<Answer> {
        let mut connection = self.connection().await?;
        let request = Request::post(post.path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, format!("Bearer {}", post.token))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", post.key)
            .body(Full::new(post.body.clone()))
            .context("building a request")?;
        let response = connection.send_request(request).await.context("sending a request")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("reading an answer")?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(Answer { status, body })
    }

    async fn connection(&self) -> Result<Connection> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut kept) = kept else { break };
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.with_context(|| format!("connecting to {}", self.authority))?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("beginning HTTP")?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
