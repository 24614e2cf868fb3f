//! Log lines: one JSON object a line for machines, a readable form for a developer's terminal.

use std::fmt;
use std::str::FromStr;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::log_line::JsonLine;
use crate::story::Story;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line: `timestamp level service target message`, the ids of the enclosing spans, the event's fields.
    #[default]
    Json,
    /// For people: coloured when standard output is a terminal.
    Pretty,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err("write json or pretty".to_owned()),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Pretty => "pretty",
        })
    }
}

/// Why `filter` is no `RUST_LOG` directive list; `None`: it is one.
#[must_use]
pub fn filter_mistake(filter: &str) -> Option<String> {
    let error = EnvFilter::try_new(filter).err()?;
    Some(format!(
        "{filter:?} can not be used ({error}): write a level, or TARGET=LEVEL, several separated by commas"
    ))
}

/// Starts logging to standard output for the whole process. A second call changes nothing.
///
/// `filter` is a `RUST_LOG` directive list; one that can not be read ([`filter_mistake`]) counts as `info`.
pub fn init(service: &'static str, format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    // An error means that a subscriber is set already (tests): keep it.
    let _already_set = match format {
        LogFormat::Json => registry.with(JsonLine::new(service)).try_init(),
        LogFormat::Pretty => {
            let lines = Storied(tracing_subscriber::fmt::format().with_target(false).compact());
            registry.with(tracing_subscriber::fmt::layer().event_format(lines)).try_init()
        }
    };
}

/// The readable form with the story's ids at the end of the line; such a line has no colours.
struct Storied<F>(F);

impl<S, N, F> FormatEvent<S, N> for Storied<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(story) = Story::current() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end_matches('\n'))?;
        story.fields().try_for_each(|(name, value)| write!(writer, " {name}={value}"))?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_can_not_be_read_is_told() {
        for filter in ["info", "warn,waybill_http=debug", "sqlx=off"] {
            assert_eq!(filter_mistake(filter), None, "{filter}");
        }
        for filter in ["waybill_http=loud", "info,=", "info,a=b=c"] {
            assert!(filter_mistake(filter).is_some_and(|told| told.contains(filter)), "{filter}");
        }
    }
}
