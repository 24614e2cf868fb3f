//! `cargo xtask bench consumer`: what a group's transaction handles per second, in batches, one by one, with repeats
//! and with messages that fail, beside pgbench sending the same rows.
//!
//! Kafka is left out: batches come from memory, so that the inbox and Postgres alone are measured. Every turn is audited
//! (each message's effect and answer once, each failing one a dead letter); one whose audit fails prints no figure.
//!
//! `cargo xtask bench consumer -- beside` measures how long other keys' messages take while some keys are retried and one
//! of them is blocked by a dead letter, on Kafka and with the relay; it ends with 1 when its aim is missed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program: it tells and it stops"
)]

mod beside;
mod failing;
mod group;
mod pgbench;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde::Serialize;
use waybill_messaging::consumer::{Batch, BatchHandler as _};
use waybill_messaging::record::Record;
use waybill_testkit::TestDatabase;

use group::{Failing, Messages};

/// Measures a consumer's side of Postgres.
#[derive(Parser)]
struct Arguments {
    /// What is measured.
    #[arg(value_enum, default_value_t = Scenario::Batches)]
    scenario: Scenario,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each kind has its turn.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Records of one batch.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Messages a second of `beside`.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Of the keys of `beside`, which share fails.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    failing_percent: u64,
    /// In each turn of `beside` one of the two members ends and comes back.
    #[arg(long)]
    restart: bool,
    /// Only the JSON.
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// What is handled per second: in batches, one by one, with repeats, with failures.
    Batches,
    /// How long other keys' messages take while some keys fail and are retried.
    Beside,
}

/// A kind of turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Full batches of new messages.
    Batches,
    /// One message in each transaction.
    OneByOne,
    /// Half of the records were handled before.
    Repeats,
    /// One of a thousand can not be decoded.
    Undecodable,
    /// One of a thousand breaks a constraint, so that its batch is redone.
    Breaking,
}

const KINDS: [Kind; 5] = [Kind::Batches, Kind::OneByOne, Kind::Repeats, Kind::Undecodable, Kind::Breaking];

/// One figure: medians of the turns.
#[derive(Serialize)]
struct Figure {
    figure: &'static str,
    value: f64,
    unit: &'static str,
    aim: Option<f64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.scenario {
        Scenario::Batches => {
            batches(&arguments).await;
            ExitCode::SUCCESS
        }
        Scenario::Beside => beside::run(&arguments).await,
    }
}

async fn batches(arguments: &Arguments) {
    let mut rates = [const { Vec::<f64>::new() }; KINDS.len()];
    let mut by_pgbench = Vec::new();
    for run in 1..=arguments.runs {
        for (kind, rates) in KINDS.iter().zip(&mut rates) {
            rates.push(turn(*kind, arguments).await);
        }
        by_pgbench.extend(pgbench::rate(arguments.batch, arguments.seconds).await);
        if !arguments.json {
            let last: Vec<String> = rates.iter().map(|rates| format!("{:.0}", rates[run - 1])).collect();
            let peer = by_pgbench.last().map_or("not there".to_owned(), |rate| format!("{rate:.0}"));
            eprintln!("run {run}: records/s {}; pgbench {peer}", last.join(", "));
        }
    }
    let [batches, one_by_one, repeats, undecodable, breaking] = rates.map(median);
    let percent = |figure, value: f64, aim| Figure { figure, value: 100.0 * value, unit: "%", aim };
    let mut figures = vec![
        Figure { figure: "records handled in batches", value: batches, unit: "/s", aim: None },
        Figure { figure: "records handled one by one", value: one_by_one, unit: "/s", aim: None },
        Figure {
            figure: "batches against one by one",
            value: batches / one_by_one,
            unit: "times",
            aim: Some(10.0),
        },
        percent("half of the records repeated: records, against none", repeats / batches, Some(80.0)),
        percent("the same, only the new ones counted", repeats / 2.0 / batches, None),
        percent("one of a thousand undecodable, against none", undecodable / batches, Some(85.0)),
        percent("one of a thousand breaking a constraint, against none", breaking / batches, Some(85.0)),
    ];
    if by_pgbench.is_empty() {
        eprintln!(
            "pgbench is not installed (Debian: postgresql-client and postgresql): not compared with it"
        );
    } else {
        figures.push(percent(
            "batches against pgbench sending the same rows",
            batches / median(by_pgbench),
            Some(60.0),
        ));
    }
    println!("{}", serde_json::to_string_pretty(&figures).unwrap());
    for figure in figures.iter().filter(|_| !arguments.json) {
        let verdict = figure.aim.map_or(String::new(), |aim| {
            format!("at least {aim}: {}", if figure.value >= aim { "met" } else { "MISSED" })
        });
        eprintln!("{:<58} {:>10.1} {:<6} {verdict}", figure.figure, figure.value, figure.unit);
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Records per second of one turn on a database of its own, audited.
async fn turn(kind: Kind, arguments: &Arguments) -> f64 {
    let database = TestDatabase::create("consumer_bench").await;
    let processor = group::prepare(&database).await;
    let (size, failing) = match kind {
        Kind::OneByOne => (1, Failing::None),
        Kind::Undecodable => (arguments.batch, Failing::Undecodable),
        Kind::Breaking => (arguments.batch, Failing::Breaking),
        Kind::Batches | Kind::Repeats => (arguments.batch, Failing::None),
    };
    let mut messages = Messages::new(failing);
    // Plans and pages are there before the clock runs.
    processor.handle(&Batch { records: messages.take(size) }).await.unwrap();
    let (started, time) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let (mut handled, mut last, mut measured) = (0, Vec::<Record>::new(), Duration::ZERO);
    while started.elapsed() < time {
        let batch = match kind {
            Kind::Repeats => {
                let fresh = messages.take(size / 2);
                let records = fresh.iter().cloned().chain(std::mem::replace(&mut last, fresh.clone()));
                Batch { records: records.collect() }
            }
            _ => Batch { records: messages.take(size) },
        };
        let before = Instant::now();
        processor.handle(&batch).await.unwrap();
        measured += before.elapsed();
        handled += batch.records.len();
    }
    group::audit(&database, &messages).await;
    handled as f64 / measured.as_secs_f64()
}
