//! The example for strangers: a Python program and the outbox's SQL, the relay with nothing but a configuration file.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use waybill_testkit::{Process, TestDatabase, TestTopics, kafka_bootstrap};

use super::setup::{Outbox, SOON};

/// The one package that the example needs.
const PSYCOPG: &str = "psycopg[binary]==3.2.13";

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tickets").join(file)
}

/// A virtual environment beside the test's program, made at the first run.
async fn python() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.ancestors().nth(2).unwrap().join("tickets-venv-3.2.13");
    let python = folder.join("bin/python");
    if !folder.join("ready").exists() {
        let make = ["-m", "venv", "--clear", &folder.display().to_string()].map(str::to_owned);
        run(Command::new("python3").args(make)).await;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PSYCOPG])).await;
        std::fs::write(folder.join("ready"), "").unwrap();
    }
    python
}

async fn run(command: &mut Command) -> String {
    let output = command.output().await.expect("python3 and python3-venv are installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// How days are dropped in this database.
async fn drop_function(database: &TestDatabase) -> String {
    let definition = "select pg_get_functiondef('outbox_partition_drop(interval)'::regprocedure)";
    sqlx::query_scalar(definition).fetch_one(&database.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_in_python_publishes_by_the_relay_with_a_file_alone() {
    let database = TestDatabase::create("tickets").await;
    let topics = TestTopics::create(&[("tickets.events", 3)]).await;
    let python = python().await;
    let tickets = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(example("tickets.py")).args(arguments).env("DATABASE_URL", &database.url);
        command.env("TICKETS_TOPIC", topics.full("tickets.events"));
        command
    };
    run(&mut tickets(&["install"])).await;
    assert_eq!(drop_function(&database).await, drop_function(&Outbox::new("migrated").await.database).await);
    // The example's own file, with this test's servers in it.
    let text = std::fs::read_to_string(example("relay.toml"))
        .unwrap()
        .replace("127.0.0.1:9092", &kafka_bootstrap())
        .replace("postgres://postgres@127.0.0.1/tickets", &database.url);
    let file = std::env::temp_dir().join(format!("tickets-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&file, text).unwrap();
    let mut relay = Process::named("outbox-relay").arg("--config").arg(file.display().to_string()).spawn();
    relay.wait_ready(SOON).await;

    assert_eq!(run(&mut tickets(&["open", "The lamp is broken"])).await.trim(), "1");
    run(&mut tickets(&["comment", "1", "Which lamp?"])).await;
    run(&mut tickets(&["close", "1"])).await;
    let refused = tickets(&["comment", "1", "Too late"]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1), "a closed ticket takes no comment");
    run(&mut tickets(&["open", "Another"])).await;
    run(&mut tickets(&["upkeep"])).await;

    let records = topics.read_all("tickets.events", |records| records.len() >= 4, SOON).await;
    let of_first = records.iter().filter(|record| record.key_text() == "1");
    let story: Vec<_> = of_first
        .map(|record| (record.header("ce_type").unwrap(), record.header("ce_sequence").unwrap()))
        .collect();
    assert_eq!(story, [("TicketOpened", "1"), ("TicketCommented", "2"), ("TicketClosed", "3")]);
    assert_eq!(records.len(), 4, "what was refused is not there");
    assert_eq!(
        records.iter().find(|record| record.key_text() == "1").unwrap().payload.as_deref(),
        Some(&br#"{"title": "The lamp is broken"}"#[..])
    );
    assert_eq!(relay.terminate().await, Some(0));
    let _gone = std::fs::remove_file(file);
}
