//! The test kit against real servers: databases are apart, topics are read back, tokens are files, processes obey.

mod own_servers;

use std::time::Duration;

use waybill_testkit::{Process, TestDatabase, TestTopics, Tokens, eventually};

/// Longest wait for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn each_database_is_its_own_and_is_dropped() {
    let one = TestDatabase::create("kit").await;
    let two = TestDatabase::create("kit").await;
    sqlx::query("create table only_here (id int)").execute(&one.pool).await.unwrap();
    let seen: bool =
        sqlx::query_scalar("select to_regclass('only_here') is not null").fetch_one(&two.pool).await.unwrap();
    assert!(!seen);
    let name = one.name().to_owned();
    drop(one);
    // The end of a test waits for it, but not for ever.
    eventually(PATIENCE, async || {
        let left =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)").bind(&name);
        let left: bool = left.fetch_one(&two.pool).await.unwrap();
        (!left).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_produced_is_read_back_in_order() {
    let topics = TestTopics::create(&[("kit", 3)]).await;
    for n in 0..5 {
        topics.produce("kit", Some(b"key"), &[("n", n.to_string().as_bytes())], Some(b"value")).await;
    }
    topics.produce("kit", Some(b"key"), &[], None).await;
    let records = topics.read_all("kit", |r| r.len() == 6, PATIENCE).await;
    let numbers: Vec<_> = records.iter().filter_map(|r| r.header("n")).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
    assert_eq!(records[5].payload, None);
    assert_eq!(records[0].key_text(), "key");
}

#[test]
fn the_key_file_lives_as_long_as_its_tokens() {
    let tokens = Tokens::new();
    let path = tokens.jwks_path().to_owned();
    assert!(std::fs::read_to_string(&path).unwrap().contains(tokens.kid()));
    drop(tokens);
    assert!(!path.exists());
}

#[tokio::test]
async fn polling_returns_what_it_found() {
    let mut looks = 0;
    let found = eventually(PATIENCE, async || {
        looks += 1;
        (looks == 3).then_some("found")
    })
    .await;
    assert_eq!(found, "found");
}

#[tokio::test]
async fn a_process_is_told_its_address_and_obeys_signals() {
    let mut process = Process::named("/bin/sh")
        .arg("-c")
        .arg("echo listening on $WAYBILL_HTTP_ADDR with $GIVEN; exec sleep 600")
        .env("GIVEN", "this")
        .spawn();
    let line = format!("listening on {} with this", process.url.strip_prefix("http://").unwrap());
    process.wait_output(&line, PATIENCE).await;
    process.sigstop().await;
    process.sigcont().await;
    assert_eq!(process.terminate().await, None, "a signal ended it");
    process.restart();
    eventually(PATIENCE, async || (process.output().matches(&line).count() == 2).then_some(())).await;
    let pid = process.pid().unwrap();
    process.kill9().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let mut failing = Process::named("/bin/sh").arg("-c").arg("exit 2").without_http().spawn();
    assert_eq!(failing.wait_exit(PATIENCE).await, Some(2));
}
