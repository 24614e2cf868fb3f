//! A service's program: reads its settings, logs, runs until a signal; or prints an OpenAPI document.

use std::fmt::Debug;
use std::future::Future;
use std::io::Write as _;

use utoipa::openapi::OpenApi;
use waybill_runtime::config::{ConfigError, EXIT_CODE_CONFIG, Environment, exit_on_mistakes};
use waybill_runtime::lifecycle::{ExitReason, Shutdown};
use waybill_telemetry::logs;

use crate::{Settings, operator};

/// What a service's `main` is made of.
#[derive(Debug, Clone, Copy)]
pub struct Program<C> {
    /// The service's name in its log lines.
    pub name: &'static str,
    /// What `--openapi` prints: the API of the main listener.
    pub openapi: fn() -> OpenApi,
    /// Reads the settings, all mistakes at once.
    pub read: fn(Environment) -> Result<C, ConfigError>,
}

impl<C: Debug + AsRef<Settings>> Program<C> {
    /// Runs `service` until it ends, and ends the process with its exit code: 0 when it was asked to stop, 1 when a part
    /// ended on its own, 2 when the configuration has mistakes (each named on standard error).
    ///
    /// With `--openapi` or `--operator-openapi` it prints that document instead, with `--help` its usage, and returns. Any
    /// other argument is a mistake of the configuration.
    ///
    /// # Errors
    /// When the service can not start at all.
    pub async fn run<F>(self, service: impl FnOnce(C, Shutdown) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<ExitReason>>,
    {
        match Arguments::of(std::env::args().skip(1)) {
            Ok(Arguments::Serve) => {}
            Ok(Arguments::OpenApi) => return print(&(self.openapi)().to_pretty_json()?),
            Ok(Arguments::OperatorOpenApi) => return print(&operator::document().to_pretty_json()?),
            Ok(Arguments::Help) => return print(&self.usage()),
            Err(Unknown(argument)) => {
                // Nobody reads standard error: the exit code still tells.
                let _unread =
                    writeln!(std::io::stderr(), "unknown argument {argument:?}\n\n{}", self.usage());
                std::process::exit(EXIT_CODE_CONFIG)
            }
        }
        let config = exit_on_mistakes((self.read)(Environment::from_process()));
        let common = &config.as_ref().common;
        logs::init(self.name, common.log_format.parse().unwrap_or_default(), &common.log_filter);
        tracing::info!(?config, "starting");
        let reason = service(config, Shutdown::on_signals()).await?;
        // Not by returning: the runtime would wait for threads of librdkafka and lookups that may never end.
        std::process::exit(reason.code());
    }

    fn usage(&self) -> String {
        // Told of SASL_SSL it asks for everything it may need.
        let every = [("KAFKA_SECURITY_PROTOCOL".to_owned(), "SASL_SSL".to_owned())];
        let env = Environment::from_map(every);
        let asked = env.asked();
        // Of interest is only what it asked for.
        let _unset = (self.read)(env);
        let mut variables = asked.variables();
        variables.sort_unstable();
        let width = variables.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let line = |(name, default): (&str, String)| match default.as_str() {
            "" => format!("  {name}"),
            "required" => format!("  {name:width$}  required"),
            default => format!("  {name:width$}  default {default}"),
        };
        let variables: Vec<String> = variables.into_iter().map(line).collect();
        format!("{}\n{}", usage_of(self.name), variables.join("\n"))
    }
}

fn usage_of(name: &str) -> String {
    format!(
        "The service {name}: runs until SIGTERM or SIGINT.\n\n\
         Usage: waybill-{name} [--openapi | --operator-openapi | --help]\n\n  \
         --openapi           print the document of its API and end\n  \
         --operator-openapi  print the document of its operators' API and end\n  \
         --help              print this and end\n\n\
         Exit codes: 0 asked to stop, 1 a part failed, 2 mistakes in arguments or settings.\n\n\
         Settings are environment variables, told in docs/ARCHITECTURE.md:"
    )
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// What a service is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arguments {
    Serve,
    OpenApi,
    OperatorOpenApi,
    Help,
}

/// An argument that no service knows.
#[derive(Debug, PartialEq, Eq)]
struct Unknown(String);

impl Arguments {
    fn of(arguments: impl Iterator<Item = String>) -> Result<Self, Unknown> {
        let mut asked = Self::Serve;
        for argument in arguments {
            asked = match argument.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--openapi" if asked == Self::Serve => Self::OpenApi,
                "--operator-openapi" if asked == Self::Serve => Self::OperatorOpenApi,
                _ => return Err(Unknown(argument)),
            };
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<Arguments, Unknown> {
        Arguments::of(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn arguments_are_one_of_a_few() {
        assert_eq!(of(&[]), Ok(Arguments::Serve));
        assert_eq!(of(&["--openapi"]), Ok(Arguments::OpenApi));
        assert_eq!(of(&["--operator-openapi"]), Ok(Arguments::OperatorOpenApi));
        assert_eq!(of(&["--help"]), Ok(Arguments::Help));
        assert_eq!(of(&["--openapi", "-h"]), Ok(Arguments::Help));
        for unknown in [&["--port=1"][..], &["serve"], &["--openapi", "--openapi"], &[""]] {
            assert!(of(unknown).is_err(), "{unknown:?}");
        }
    }
}
