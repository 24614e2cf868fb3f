//! `cargo xtask bench relay`: the relay against the broker's own limit, and what it costs Postgres.
//!
//! Every run is audited by the topic itself; one that did not bring every row once and in order prints no number.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program: it tells and it stops"
)]

mod arguments;
mod audit;
mod bare;
mod load;
mod open_loop;
mod plot;
mod profile;
mod relay;
mod report;
mod scenarios;
mod topic;

use clap::Parser as _;
use waybill_bench::findings;

use arguments::Arguments;

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let mut findings = Vec::new();
    for what in arguments.wanted() {
        findings.extend(scenarios::run(what, &arguments).await);
    }
    println!("{}", serde_json::to_string_pretty(&findings).unwrap());
    arguments.say(&findings::table(&findings));
}
