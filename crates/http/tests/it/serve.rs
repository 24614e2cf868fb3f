//! The listener: slow heads are cut, caps hold, a hang-up does not cancel a detached write, the drain is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;
use waybill_http::ApiError;
use waybill_http::detached::run_to_end;
use waybill_http::serve::Limits;
use waybill_testkit::eventually;

use crate::server::{PATIENCE, Server};

fn answering() -> Router {
    Router::new().route("/", get(async || "here"))
}

#[tokio::test]
async fn a_half_sent_head_is_cut_and_others_are_served_meanwhile() {
    let limits = Limits { header_read_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start_with(answering(), limits).await;
    let mut half = Vec::new();
    for _ in 0..200 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nX-Slow: ").await.unwrap();
        half.push(stream);
    }
    assert_eq!(reqwest::get(server.url("/")).await.unwrap().text().await.unwrap(), "here");
    for mut stream in half {
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
        assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"), "{ended:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_their_turn() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let server = Server::start_with(answering(), limits).await;
    let mut first = server.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    let mut start = [0; 15];
    first.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    let mut second = server.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    let mut one = [0; 1];
    assert!(timeout(Duration::from_millis(200), second.read_exact(&mut one)).await.is_err(), "it waits");
    drop(first);
    timeout(PATIENCE, second.read_exact(&mut one)).await.expect("its turn has come").unwrap();
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let server = Server::start(answering()).await;
    let answer =
        reqwest::Client::new().get(server.url("/")).bearer_auth("a".repeat(1024 * 1024)).send().await;
    // hyper answers 431 and closes; the client may see the closing first.
    assert!(answer.is_err() || answer.is_ok_and(|a| a.status() == 431));
    assert!(reqwest::get(server.url("/")).await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_503() {
    let limits = Limits { request_timeout: Duration::from_millis(100), ..Limits::default() };
    let router = Router::new().route("/", get(async || std::future::pending::<()>().await));
    let server = Server::start_with(router, limits).await;
    let answer = reqwest::get(server.url("/")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "request_timeout");
}

#[tokio::test]
async fn a_hang_up_does_not_cancel_a_detached_write() {
    let (entered, go, written) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let write = {
        let (entered, go, written) = (entered.clone(), go.clone(), written.clone());
        move || {
            let (entered, go, written) = (entered.clone(), go.clone(), written.clone());
            run_to_end(async move {
                entered.notify_one();
                go.notified().await;
                written.store(true, Ordering::SeqCst);
                Ok::<_, ApiError>(())
            })
        }
    };
    let server = Server::start(Router::new().route("/", post(write))).await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    timeout(PATIENCE, entered.notified()).await.expect("the write began");
    drop(stream);
    // The hang-up is noticed when the connection is counted out.
    eventually(PATIENCE, async || hung_up_counted().await.then_some(())).await;
    go.notify_one();
    eventually(PATIENCE, async || written.load(Ordering::SeqCst).then_some(())).await;
}

/// Whether a request of this process ended with its caller gone.
async fn hung_up_counted() -> bool {
    waybill_telemetry::metrics::render().lines().any(|line| {
        line.starts_with("http_request_duration_seconds_count{method=\"POST\"") && line.contains("hung_up")
    })
}

#[tokio::test]
async fn a_detached_panic_is_an_answer() {
    let work = run_to_end(async { if true { panic!("as planned") } else { Ok(()) } });
    assert_eq!(work.await.unwrap_err().code, "internal");
}

#[tokio::test]
async fn open_requests_end_before_the_server_does() {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (entered, go) = (entered.clone(), go.clone());
        move || {
            let (entered, go) = (entered.clone(), go.clone());
            async move {
                entered.notify_one();
                go.notified().await;
                "done"
            }
        }
    };
    let mut server = Server::start(Router::new().route("/", get(slow))).await;
    let asking = tokio::spawn(reqwest::get(server.url("/")));
    timeout(PATIENCE, entered.notified()).await.expect("the request began");
    server.shutdown.request();
    eventually(PATIENCE, async || tokio::net::TcpStream::connect(server.address).await.err()).await;
    assert!(!server.serving.is_finished());
    go.notify_one();
    assert_eq!(asking.await.unwrap().unwrap().text().await.unwrap(), "done");
    timeout(PATIENCE, &mut server.serving).await.expect("drained").unwrap();
}

#[tokio::test]
async fn the_drain_is_bounded() {
    let limits = Limits { drain_timeout: Duration::from_millis(100), ..Limits::default() };
    let entered = Arc::new(Notify::new());
    let stuck = {
        let entered = entered.clone();
        move || {
            entered.notify_one();
            std::future::pending::<()>()
        }
    };
    let mut server = Server::start_with(Router::new().route("/", get(stuck)), limits).await;
    let asking = tokio::spawn(reqwest::get(server.url("/")));
    timeout(PATIENCE, entered.notified()).await.expect("the request began");
    server.shutdown.request();
    timeout(PATIENCE, &mut server.serving).await.expect("the bound holds").unwrap();
    assert!(asking.await.unwrap().is_err(), "the connection was cut");
}
