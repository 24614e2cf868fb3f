//! `cargo xtask bench saga`: what each hop of an order costs alone, and how near the whole comes to their sum; `-- place`:
//! the place-order endpoint beside pgbench, on the disk and in memory.
//!
//! Figures go to standard output as JSON, a table to standard error; a run whose audit fails has none.

mod arguments;
mod figures;
mod hops;
mod place;
mod stages;
mod whole;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use waybill_bench::{findings, progress};
use waybill_runtime::lifecycle::Shutdown;

use arguments::{Arguments, What};

/// Two threads: the load must not be alone on a machine where everything else runs too.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let stop = Shutdown::on_signals();
    let measured = tokio::select! {
        measured = measure(&arguments) => measured,
        // Falling out of here drops everything: processes, databases and topics go.
        () = stop.requested() => Err(anyhow::anyhow!("stopped by a signal: no figures")),
    };
    match measured.and_then(|json| Ok(writeln!(std::io::stdout(), "{json}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The figures as JSON.
async fn measure(arguments: &Arguments) -> anyhow::Result<String> {
    match arguments.what {
        What::Hops => {
            let report = whole::run(arguments).await?;
            arguments.say(&report.table());
            Ok(serde_json::to_string_pretty(&report)?)
        }
        What::Place => {
            let figures = place::run(arguments).await?;
            arguments.say(&findings::table(&figures));
            Ok(serde_json::to_string_pretty(&figures)?)
        }
    }
}
