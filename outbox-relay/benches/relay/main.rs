//! `cargo xtask bench relay`: the relay's drain rate against a bare producer, alternating, and what it costs Postgres.
//!
//! Every run is audited by the topic's own offsets; a run that did not bring every row prints no number.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program: it tells and it stops"
)]

mod bare;
mod drain;
mod load;
mod report;
mod topic;

use std::time::Duration;

use clap::Parser;
use sqlx::PgPool;
use waybill_testkit::TestDatabase;

use report::{Report, Run};

/// Measures the relay.
#[derive(Parser)]
struct Arguments {
    /// Rows to drain.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// Bytes of each payload; key (16) and two headers come on top, for both.
    #[arg(long, default_value_t = 200)]
    bytes: i32,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// How often each is run, in turn.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds for which the idle relay is watched.
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
    /// `linger.ms` of both.
    #[arg(long, default_value_t = 1)]
    linger_ms: u32,
    /// Only the JSON.
    #[arg(long)]
    json: bool,
    /// Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let say = |text: &str| {
        if !arguments.json {
            eprintln!("{text}");
        }
    };
    let database = TestDatabase::create("relay_bench").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    let (relay_topic, bare_topic) = (
        topic::Topic::create("relay", arguments.partitions).await,
        topic::Topic::create("bare", arguments.partitions).await,
    );
    say(&format!("loading {} rows of {} B ...", arguments.rows, arguments.bytes));
    load::load(&database.pool, &relay_topic.name, arguments.rows, arguments.bytes).await;
    let records = load::read(&database.pool).await;

    let (mut bare_runs, mut relay_runs) = (Vec::new(), Vec::new());
    for number in 1..=arguments.runs {
        let run = audited(&bare_topic, arguments.rows, async || {
            bare::run(&bare_topic.name, &records, arguments.linger_ms)
        })
        .await;
        say(&format!("run {number}, bare producer: {run}"));
        bare_runs.push(run);
        position_reset(&database.pool).await;
        let run = audited(&relay_topic, arguments.rows, async || {
            drain::run(&database, arguments.rows, arguments.linger_ms).await
        })
        .await;
        say(&format!("run {number}, relay:         {run}"));
        relay_runs.push(run);
    }
    say("watching it idle ...");
    let idle = drain::idle(&database, Duration::from_secs(arguments.idle_seconds)).await;
    let dead =
        "select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables where relname ~ '^outbox_\\d'";
    let dead_tuples: i64 = sqlx::query_scalar(dead).fetch_one(&database.pool).await.unwrap();
    let report = Report::new(
        arguments.rows,
        arguments.bytes,
        arguments.partitions,
        &bare_runs,
        &relay_runs,
        dead_tuples,
        idle,
    );
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    say(&report.verdict());
}

/// A run counts only when the topic got just that many records.
async fn audited(topic: &topic::Topic, rows: i64, run: impl AsyncFnOnce() -> Run) -> Run {
    let before = topic.records();
    let run = run().await;
    let came = topic.records() - before;
    assert_eq!(
        came, rows,
        "{}: {came} records came where {rows} were to: this run has no number",
        topic.name
    );
    run
}

/// Everything is unpublished again.
async fn position_reset(pool: &PgPool) {
    let reset = "update outbox_relay set position_from = '1:1:', position_to = null, position_id = 0";
    sqlx::query(reset).execute(pool).await.unwrap();
}
