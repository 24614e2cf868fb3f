//! An HTTP client that costs little: plain HTTP/1.1 over kept connections to one address. What is measured shares its
//! processors with it, so a request is put together as text, and of an answer only that is read which is asked for.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for one answer: past it the server hangs, and the request counts as failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of one request: a kept connection may have been closed by the server meanwhile. The idempotency key makes
/// the second try harmless.
const TRIES_MAX: usize = 2;
/// Room for a usual answer.
const ANSWER_BYTES: usize = 4 * 1024;
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest body of an answer.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

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

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

/// What is read of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: StatusCode,
    body_bytes: usize,
    closes: bool,
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
        let request = self.request(&post)?;
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let tried = tokio::time::timeout(ANSWER_TIMEOUT, self.try_post(&request)).await;
            match tried.with_context(|| format!("no answer within {ANSWER_TIMEOUT:?}"))? {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    // Those beside it are as old: the next try is made over a new one.
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("not sent")))
    }

    fn request(&self, post: &Post<'_>) -> Result<Vec<u8>> {
        let Post { path, token, key, body } = post;
        let mut request = Vec::with_capacity(1024 + body.len());
        write!(
            request,
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n",
            self.authority,
            body.len()
        )
        .context("writing a request")?;
        request.extend_from_slice(body);
        Ok(request)
    }

    async fn try_post(&self, request: &[u8]) -> Result<Answer> {
        let mut connection = self.connection().await?;
        connection.stream.write_all(request).await.context("sending a request")?;
        let (answer, closes) = connection.answer().await.context("reading an answer")?;
        if !closes {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(answer)
    }

    async fn connection(&self) -> Result<Connection> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.with_context(|| format!("connecting to {}", self.authority))?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        Ok(Connection { stream, buffer: BytesMut::with_capacity(ANSWER_BYTES) })
    }
}

impl Connection {
    /// Reads one answer, and whether the server closes the connection behind it.
    async fn answer(&mut self) -> Result<(Answer, bool)> {
        let (head, head_bytes) = loop {
            self.more().await?;
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break (Head::parse(&self.buffer[..end])?, end + 4);
            }
            ensure!(self.buffer.len() <= HEAD_BYTES_MAX, "the head is too large");
        };
        self.buffer.advance(head_bytes);
        while self.buffer.len() < head.body_bytes {
            self.more().await?;
        }
        let body = self.buffer.split_to(head.body_bytes).freeze();
        ensure!(self.buffer.is_empty(), "more than one answer");
        Ok((Answer { status: head.status, body }, head.closes))
    }

    async fn more(&mut self) -> Result<()> {
        self.buffer.reserve(ANSWER_BYTES);
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the connection was closed");
        Ok(())
    }
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(head).context("a head that is no text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3));
        let status = status.with_context(|| format!("no HTTP: {text}"))?.parse().context("a status")?;
        let (mut body_bytes, mut closes) = (None, false);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("content-length") {
                body_bytes = Some(value.parse().context("a length")?);
            } else if name.eq_ignore_ascii_case("connection") {
                closes = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("an answer in pieces, which none of our services gives: {text}");
            }
        }
        let body_bytes = body_bytes.with_context(|| format!("an answer without a length: {text}"))?;
        ensure!(body_bytes <= BODY_BYTES_MAX, "an answer of {body_bytes} bytes");
        Ok(Self { status, body_bytes, closes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_status_length_and_end() {
        let head = Head::parse(b"HTTP/1.1 202 Accepted\r\nContent-Length: 17\r\nx-request-id: 1").unwrap();
        assert_eq!(head, Head { status: StatusCode::ACCEPTED, body_bytes: 17, closes: false });
        let head =
            Head::parse(b"HTTP/1.1 503 Unavailable\r\nconnection: close\r\ncontent-length: 0").unwrap();
        assert_eq!(head, Head { status: StatusCode::SERVICE_UNAVAILABLE, body_bytes: 0, closes: true });
        for odd in
            ["", "HTTP/1.0 200 OK\r\ncontent-length: 1", "HTTP/1.1 200 OK", "HTTP/1.1 2\r\ncontent-length: 1"]
        {
            assert!(Head::parse(odd.as_bytes()).is_err(), "{odd}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_come_in_parts_and_a_connection_is_used_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()));
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut requests = Vec::new();
            for _ in 0..2 {
                let mut request = vec![0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8(request[..read].to_vec()).unwrap());
                for part in ["HTTP/1.1 202 Accepted\r\nconte", "nt-length: 4\r\n\r\nab", "cd"] {
                    stream.write_all(part.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            requests
        });
        for _ in 0..2 {
            let post = Post { path: "/here", token: "t", key: "k", body: Bytes::from_static(b"{}") };
            let answer = client.post(post).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::ACCEPTED, &b"abcd"[..]));
        }
        for request in served.await.unwrap() {
            assert!(request.starts_with("POST /here HTTP/1.1\r\n"), "{request}");
            assert!(request.ends_with("\r\ncontent-length: 2\r\n\r\n{}"), "{request}");
        }
    }
}
