//! `spine`: measures one order's whole path and prints the figures, or says why there are none.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use waybill_bench::arguments::Arguments;
use waybill_bench::{progress, run, table};
use waybill_runtime::lifecycle::Shutdown;

/// Two threads: the load must not be alone on a machine where everything else runs too.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let stop = Shutdown::on_signals();
    let measured = tokio::select! {
        measured = run::run(&arguments) => measured,
        // Falling out of here drops the system: processes, databases and topics go.
        () = stop.requested() => Err(anyhow::anyhow!("stopped by a signal: no figures")),
    };
    match measured {
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
        Ok(report) => {
            let text = if json { report.json() } else { table::render(&report) };
            match writeln!(std::io::stdout(), "{text}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
    }
}
