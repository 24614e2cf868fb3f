//! What is asked for on the command line.

use clap::{Parser, ValueEnum};
use waybill_bench::arguments::Arguments as Spine;
use waybill_bench::progress;

/// Measures the saga of an order hop by hop, or the endpoint that begins it.
#[derive(Debug, Parser)]
#[command(name = "saga", version)]
pub(crate) struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value = "hops")]
    pub(crate) what: What,
    /// Orders of one turn of hops: each hop has this backlog before it begins.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) orders: u32,
    /// How often each is measured, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Seconds of load before the first measured time: a new broker's Java compiles itself meanwhile.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(crate) warm_up_s: u64,
    /// Measured seconds of one turn of the whole.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) measure_s: u64,
    /// Measured seconds of one turn of `place`. Up to three end before the first order is five seconds old; then the service
    /// looks whether its command was published, which here it never is, and pgbench does nothing of the kind.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub(crate) place_s: u64,
    /// Clients that place orders; in `place` also the connections of the service's pool and of pgbench.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) clients: u32,
    /// RUST_LOG of the measured processes.
    #[arg(long, default_value = "info")]
    pub(crate) log_filter: String,
    /// Only the JSON.
    #[arg(long)]
    json: bool,
}

/// One part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Each hop of an order alone, then all of them at full load.
    Hops,
    /// The place-order endpoint against pgbench that writes the same rows, one order in a statement, on the disk and in memory.
    Place,
}

impl Arguments {
    /// The closed loop's arguments: an order of two lines from 200 products, as in the spine.
    pub(crate) fn spine(&self, warm_up_s: u64) -> Spine {
        let spine = Spine::parse_from(["spine"]);
        Spine { clients: self.clients, warm_up_s, measure_s: self.measure_s, ..spine }
    }

    /// Tells a person, unless only the JSON is wanted.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            progress(text);
        }
    }
}
