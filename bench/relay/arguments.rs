//! What is measured and how much of it: the arguments of the benchmark.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the relay.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// What to measure; all of it when nothing is named, but not what takes many minutes (behind, debezium, growth).
    #[arg(value_enum)]
    what: Vec<What>,
    /// Rows of one drain.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) rows: i64,
    /// Bytes of each payload; key (16) and two headers come on top, for both.
    #[arg(long, default_value_t = 200)]
    pub(crate) bytes: i32,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 6)]
    pub(crate) partitions: i32,
    /// How often each is run, in turn.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Seconds of one open loop, of one turn of transactions, and for which the idle relay is watched.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// `linger.ms` of both in a drain, the relay's default; latency is measured with that.
    #[arg(long, default_value_t = 0)]
    pub(crate) linger_ms: u32,
    /// Rows per second of the open loop; a fifth of a drain's rate when not given.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Rows that the relay is behind in `behind`, and the most that are retained in `growth`.
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) many_rows: i64,
    /// Folder for the plots of `growth`.
    #[arg(long, default_value = "docs/benchmarks")]
    pub(crate) plots: PathBuf,
    /// Folder of Debezium's and Kafka Connect's jars; filled by Maven when it is not there.
    #[arg(long, default_value = "target/peers/debezium")]
    pub(crate) peer_jars: PathBuf,
    /// Only the JSON.
    #[arg(long)]
    json: bool,
}

/// One part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Drain rate against a bare producer, WAL, dead tuples, memory, idling.
    Drain,
    /// From a commit's answer to the broker's append, at a fifth of the drain's rate.
    Latency,
    /// Drain with a REPEATABLE READ reader held open, and with an open write in another database.
    Held,
    /// What the outbox adds to a transaction.
    Tax,
    /// Memory with millions of rows behind.
    Behind,
    /// Against Debezium with Kafka Connect; needs a server with wal_level = logical.
    Debezium,
    /// Rate and latency over the number of databases and over retained rows, as plots.
    Growth,
}

impl Arguments {
    /// What to measure, in order.
    pub(crate) fn wanted(&self) -> Vec<What> {
        match self.what.as_slice() {
            [] => vec![What::Drain, What::Latency, What::Held, What::Tax],
            named => named.to_vec(),
        }
    }

    /// Tells a person, unless only the JSON is wanted.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }
}
