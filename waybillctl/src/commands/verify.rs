//! `waybillctl verify`: looks whether the promises hold, changes nothing.

use clap::Args;

use crate::cli::Kafka;
use crate::exit::{Exit, Usage};
use crate::output;
use crate::verify::{self, Databases, Topics};

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    kafka: Kafka,
    /// The services' databases: orders=postgres://...,inventory=postgres://...,payments=postgres://...
    ///
    /// A role that may read is enough. It looks in transactions of one snapshot each that can not write; on a large
    /// database they stay open for minutes and hold back vacuum.
    #[arg(long, env = "WAYBILL_VERIFY_DATABASES", value_name = "NAME=URL,...", hide_env_values = true)]
    databases: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Looks, and says what was found and what was not judged.
pub(crate) async fn run(options: Options) -> anyhow::Result<Exit> {
    let databases = Databases::parse(&options.databases).map_err(Usage::of)?;
    let topics = Topics::new(&options.kafka.bootstrap_servers, &options.kafka.prefix)?;
    let report = verify::verify(&databases, &topics).await?;
    output::result(&if options.json { serde_json::to_string(&report)? } else { report.as_text() })?;
    Ok(if report.holds { Exit::Done } else { Exit::Differs })
}
