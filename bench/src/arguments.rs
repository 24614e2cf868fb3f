//! What is asked for on the command line; the defaults are a run of about two minutes.

use clap::Parser;

/// Measures one order's whole path on one machine: what it costs, how many fit into a second, how long it takes.
///
/// Servers are named by WAYBILL_POSTGRES_URL and KAFKA_BOOTSTRAP_SERVERS, the programs lie in WAYBILL_BIN_DIR;
/// `cargo xtask bench spine` sets all three. Figures go to standard output, and only when the audit at the end holds.
#[derive(Debug, Clone, Parser)]
#[command(name = "spine", version)]
pub struct Arguments {
    /// Prints one JSON object in place of the table.
    #[arg(long)]
    pub json: bool,
    /// Products in the catalogue; an order picks its lines among them at random.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub skus: u32,
    /// Lines of each order, one piece each.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub lines: u32,
    /// Customers who place the orders.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub customers: u32,
    /// Orders placed one by one to count what a single one costs.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub single_orders: u32,
    /// Clients of the closed loop: each sends its next order when the last one was answered.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub clients: u32,
    /// Orders of the closed loop that may be accepted and not yet ended: past it clients wait, so that the rate is
    /// one that the whole path sustains. A large number floods the system instead.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub open_orders_max: u32,
    /// Seconds of load before the measured time of the closed loop. A new broker's Java compiles itself meanwhile: in its
    /// first half minute under load that takes half of its processor time.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub warm_up_s: u64,
    /// Measured seconds of the closed loop.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub measure_s: u64,
    /// Measured seconds of the open loop; 0 leaves it out.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub open_loop_s: u64,
    /// Orders per second of the open loop; when left out, a part of the closed loop's rate.
    #[arg(long)]
    pub rate: Option<f64>,
    /// That part.
    #[arg(long, default_value_t = 0.5)]
    pub rate_fraction: f64,
    /// RUST_LOG of the measured processes.
    #[arg(long, default_value = "info")]
    pub log_filter: String,
}
