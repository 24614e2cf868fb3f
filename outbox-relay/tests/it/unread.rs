//! Reading that fails or hangs: known by a metric, and a dead connection is given up long before a long statement would be.
//! Keeping that hangs: rows are published all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outbox_relay::config::{Config, Source};
use outbox_relay::store::{Keeper, KeeperError, StoreError};
use sqlx::Connection as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use waybill_testkit::eventually;

use super::setup::{Outbox, SOON, TOPIC, append, ask, metric};

const PUBLISHED: &str = "outbox_relay_published_rows_total";
/// So many are worth a write of the position.
const ROWS_WORTH_A_WRITE: u32 = 500;
const UNANSWERED: &str = "outbox_relay_unanswered_read_seconds";
/// The connection that keeps the lease, and the one that reads: in this order they are made.
const KEEPER: usize = 0;
const READER: usize = 1;
/// Far above the quarter of a minute after which it is given up, below the two minutes of the longest statement.
const GIVEN_UP: Duration = Duration::from_secs(90);

/// A way to the database on which one of the connections may fall silent, with neither side told.
struct Way {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(outbox: &Outbox, which: usize) -> (Self, String) {
        let mut url = reqwest::Url::parse(&outbox.database.url).unwrap();
        let way = Self::to_port(url.port().unwrap(), which).await;
        url.set_port(Some(way.address.port())).unwrap();
        (way, format!("db={url}"))
    }

    async fn to_port(port: u16, which: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, silent) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&silent);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            let mut number = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let silent = (number == which).then(|| Arc::clone(&told));
                number += 1;
                connections.spawn(async move {
                    tokio::select! {
                        _ended = copy_bidirectional(&mut client, &mut server) => return,
                        () = falls_silent(silent) => {}
                    }
                    // Both stay open, and nothing is carried.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { address, silent, task }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn falls_silent(silent: Option<Arc<AtomicBool>>) {
    let Some(silent) = silent else { return std::future::pending().await };
    while !silent.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_dead_and_does_not_know_is_given_up() {
    let outbox = Outbox::new("half_open").await;
    let (way, databases) = Way::to(&outbox, READER).await;
    let mut relay = outbox.relay().env("OUTBOX_RELAY_DATABASES", databases).spawn();
    relay.wait_ready(SOON).await;
    let mut connection = outbox.connection().await;
    append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
    eventually(SOON, async || (metric(&relay, PUBLISHED).await == 1.0).then_some(())).await;
    way.silent.store(true, Ordering::Release);
    eventually(SOON, async || (metric(&relay, UNANSWERED).await >= 2.0).then_some(())).await;
    append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
    eventually(GIVEN_UP, async || (metric(&relay, PUBLISHED).await == 2.0).then_some(())).await;
    eventually(SOON, async || (metric(&relay, UNANSWERED).await < 2.0).then_some(())).await;
    assert!(relay.output().contains("gave no answer within"), "{}", relay.output());
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_do_not_wait_for_the_position_to_be_stored() {
    let outbox = Outbox::new("unkept").await;
    let (way, databases) = Way::to(&outbox, KEEPER).await;
    // The position is due with the first rows; the lease lasts for longer than all of this.
    let mut relay = outbox
        .relay()
        .env("OUTBOX_RELAY_DATABASES", databases)
        .env("OUTBOX_RELAY_POSITION_INTERVAL_MS", "10")
        .env("OUTBOX_RELAY_LEASE_MS", "600000")
        .spawn();
    relay.wait_ready(SOON).await;
    way.silent.store(true, Ordering::Release);
    let (mut connection, topic) = (outbox.connection().await, outbox.topics.full(TOPIC));
    let mut transaction = connection.begin().await.unwrap();
    for _ in 0..ROWS_WORTH_A_WRITE {
        append(&mut transaction, &topic, 1).await;
    }
    transaction.commit().await.unwrap();
    for more in 1..=2_u32 {
        let all = f64::from(ROWS_WORTH_A_WRITE + more - 1);
        eventually(SOON, async || (metric(&relay, PUBLISHED).await == all).then_some(())).await;
        append(&mut connection, &topic, 1).await;
    }
    let all = f64::from(ROWS_WORTH_A_WRITE + 2);
    eventually(SOON, async || (metric(&relay, PUBLISHED).await == all).then_some(())).await;
    assert_eq!(metric(&relay, "outbox_relay_positions_stored_total").await, 0.0, "no answer came");
    assert_eq!(metric(&relay, "outbox_relay_leases_total").await, 1.0, "it is the same tenure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_that_fails_again_and_again_is_one_that_is_not_answered() {
    let outbox = Outbox::new("unread").await;
    let mut relay = outbox.relay().spawn();
    relay.wait_ready(SOON).await;
    let mut connection = outbox.connection().await;
    // Each read fails after two seconds of waiting for the lock, and ends its tenure.
    sqlx::raw_sql(
        "set idle_in_transaction_session_timeout = 0; begin; lock table outbox in access exclusive mode",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    eventually(SOON, async || (metric(&relay, UNANSWERED).await >= 8.0).then_some(())).await;
    let (status, body) = ask(&relay, "/ready").await;
    assert!(status == 503 && body.contains("postgres"), "{status} {body}");
    assert!(metric(&relay, "outbox_relay_leases_total").await >= 2.0, "more than one tenure");
    sqlx::raw_sql("rollback").execute(&mut connection).await.unwrap();
    relay.wait_ready(SOON).await;
    eventually(SOON, async || (metric(&relay, UNANSWERED).await < 2.0).then_some(())).await;
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_statement_was_given_up_takes_no_other() {
    let outbox = Outbox::new("midway").await;
    let databases = ("OUTBOX_RELAY_DATABASES".to_owned(), format!("db={}", outbox.database.url));
    let config: Config = Source::new([databases], None).read().unwrap();
    let lease = Duration::from_secs(60);
    let mut keeper = Keeper::connect(&config.databases[0].options, "default", "one", lease, 0).await.unwrap();
    keeper.acquire(0).await.unwrap();
    let mut connection = outbox.connection().await;
    sqlx::raw_sql("begin; update outbox_relay set updated_at = now()")
        .execute(&mut connection)
        .await
        .unwrap();
    let kept = tokio::time::timeout(Duration::from_millis(200), keeper.keep(1, None)).await;
    assert!(kept.is_err(), "it waits for the row");
    sqlx::raw_sql("rollback").execute(&mut connection).await.unwrap();
    let released = keeper.release(1, None).await;
    assert!(matches!(released, Err(KeeperError::Store(StoreError::Midway))), "{released:?}");
}
