//! Servers of a test's own: they come up, survive what is done to them with their data, and leave nothing behind.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use waybill_testkit::{OwnKafka, OwnPostgres, TcpSwitch, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

async fn notes(url: &str) -> Option<i64> {
    let mut connection = PgConnection::connect(url).await.ok()?;
    sqlx::query_scalar("select count(*) from note").fetch_one(&mut connection).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_server_is_killed_copied_and_promoted() {
    let mut first = OwnPostgres::start().await;
    let switch = TcpSwitch::to(first.port()).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", switch.port());
    first.execute("postgres", "create table note (id int); insert into note values (1)").await;
    first.kill9().await;
    assert_eq!(notes(&url).await, None);
    first.start_again().await;
    assert_eq!(notes(&url).await, Some(1));

    let standby = first.standby().await;
    first.execute("postgres", "insert into note values (2)").await;
    eventually(PATIENCE, async || (notes(&standby.url("postgres")).await == Some(2)).then_some(())).await;
    let mut reader = PgConnection::connect(&standby.url("postgres")).await.unwrap();
    assert!(reader.execute("insert into note values (3)").await.is_err(), "a standby takes no writes");
    let mut through = PgConnection::connect(&url).await.unwrap();
    first.kill9().await;
    standby.promote().await;
    switch.turn_to(Some(standby.port()));
    assert!(through.execute("select 1").await.is_err(), "connections to the old one are broken");
    let mut through = PgConnection::connect(&url).await.unwrap();
    through.execute("insert into note values (3)").await.unwrap();
    assert_eq!(notes(&url).await, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_keeps_its_topics_over_a_kill() {
    let mut kafka = OwnKafka::builder().property("num.io.threads", "2").start().await;
    let create = ["--create", "--topic", "kept", "--partitions", "2"];
    kafka.tool("org.apache.kafka.tools.TopicCommand", &create).await;
    kafka.kill9(0).await;
    kafka.start_again(0);
    kafka.wait_ready(1).await;
    let listed = kafka.tool("org.apache.kafka.tools.TopicCommand", &["--list"]).await;
    assert!(listed.lines().any(|line| line == "kept"), "{listed}");
}
