//! Counts round trips on the wire: a forwarder that stands between a service and Postgres while one order is measured.
//!
//! A round trip is a turn of the talk: the client sends after the server has spoken. It needs no knowledge of the
//! protocol, and counts several messages that are sent together as the one wait that they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes forwarded at once: a read of what the socket holds.
const CHUNK_BYTES: usize = 16 * 1024;

/// A counting forwarder; ends with this value.
#[derive(Debug)]
pub struct Meter {
    /// Where it listens.
    pub address: SocketAddr,
    turns: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Meter {
    /// Listens on a free port of loopback and forwards to `upstream` (`host:port`).
    ///
    /// # Errors
    /// When there is no port.
    pub async fn before(upstream: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for counting round trips")?;
        let address = listener.local_addr().context("its address")?;
        let turns = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&turns);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, upstream.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self { address, turns, accepting })
    }

    /// Round trips of all connections so far.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Forwards until either side closes or fails: dropping both ends tells the other.
async fn forward(client: TcpStream, upstream: String, turns: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let server_spoke = AtomicBool::new(true);
    tokio::select! {
        () = pump(from_client, to_server, || {
            if server_spoke.swap(false, Ordering::Relaxed) {
                turns.fetch_add(1, Ordering::Relaxed);
            }
        }) => {}
        () = pump(from_server, to_client, || server_spoke.store(true, Ordering::Relaxed)) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, on_chunk: impl Fn()) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length) = from.read(&mut chunk).await {
        if length == 0 {
            return;
        }
        on_chunk();
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each chunk it is sent.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (from, to) = stream.into_split();
            pump(from, to, || {}).await;
        });
        address
    }

    #[tokio::test]
    async fn what_is_sent_before_an_answer_is_one_round_trip() {
        let meter = Meter::before(echo().await.to_string()).await.unwrap();
        let mut client = TcpStream::connect(meter.address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let mut answer = [0; 2];
        for sent in 1..=3 {
            client.write_all(b"a").await.unwrap();
            client.write_all(b"b").await.unwrap();
            client.read_exact(&mut answer).await.unwrap();
            assert!(
                meter.round_trips() >= sent && meter.round_trips() <= 2 * sent,
                "{}",
                meter.round_trips()
            );
        }
        let before = meter.round_trips();
        client.write_all(b"cd").await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(meter.round_trips(), before + 1);
    }
}
