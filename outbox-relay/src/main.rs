//! The relay's process: arguments, settings, logs, then the workers until a signal.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Parser;
use outbox_relay::config::Source;
use outbox_relay::run;
use waybill_runtime::config::exit_on_mistakes;
use waybill_runtime::lifecycle::Shutdown;
use waybill_telemetry::logs;

/// Publishes committed outbox rows to Kafka, in order. Settings come from the environment (see docs/relay.md) or a file.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A TOML file with settings; the environment's win over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Reads the settings, says what would be done, and ends: exit code 0, or 2 with every mistake named.
    #[arg(long)]
    check_config: bool,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let source = Source::new(std::env::vars(), arguments.config.as_deref());
    let config = exit_on_mistakes(source.read());
    if arguments.check_config {
        // Nobody reads standard output: the exit code still tells.
        let _unread = write!(std::io::stdout(), "{config}");
        return;
    }
    logs::init(run::NAME, config.log_format.parse().unwrap_or_default(), &config.log_filter);
    let code = match run::run(config, source, Shutdown::on_signals()).await {
        Ok(reason) => reason.code(),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the relay could not start");
            1
        }
    };
    // librdkafka may still be closing connections on its own threads: they are not waited for.
    std::process::exit(code);
}
