//! The story for people.

use std::fmt::Write as _;

use chrono::DateTime;

use crate::report::Report;
use crate::steps::{Step, word};
use crate::timeline::What;

/// A timeline, the saga's steps, and what is to be looked at. (Writing into a String does not fail.)
pub(crate) fn of(report: &Report) -> String {
    let mut text = String::new();
    let traces = if report.trace_ids.is_empty() { "-".to_owned() } else { report.trace_ids.join(", ") };
    let _ = writeln!(text, "story {}, trace {traces}", report.correlation_id);
    timeline(&mut text, report);
    text.push_str(&table(&report.steps));
    missing(&mut text, report);
    text
}

fn timeline(text: &mut String, report: &Report) {
    let mut day = String::new();
    for entry in &report.timeline {
        let time = DateTime::parse_from_rfc3339(&entry.at).map(|time| time.to_utc());
        let (date, clock) = match time {
            Ok(time) => (time.format("%Y-%m-%d").to_string(), time.format("%H:%M:%S%.3f").to_string()),
            Err(_) => (String::new(), entry.at.clone()),
        };
        if date != day {
            let _ = writeln!(text, "{date}");
            day = date;
        }
        let mark = match entry.what {
            What::Command => "command",
            What::MessageOut => "said",
            What::Published => "topic",
            What::MessageIn => "heard",
            What::SagaStep => "saga",
            What::Retry => "retry",
            What::DeadLetter => "dead",
        };
        // A line end in somebody's error would look like another entry.
        let title = entry.title.replace(['\n', '\r', '\t'], " ");
        let _ = writeln!(text, "  {clock} {:<10} {mark:<8} {title}", entry.service);
    }
}

/// What could not be told, and why: what is not here may have happened all the same.
fn missing(text: &mut String, report: &Report) {
    let _ = write!(
        text,
        "\nasked: {}",
        if report.asked.is_empty() { "none".to_owned() } else { report.asked.join(", ") }
    );
    for missing in &report.not_asked {
        let service = missing.service.as_deref().unwrap_or("every other service");
        let _ = write!(text, "\nNOT ASKED: {service}: {}", missing.why);
    }
    text.push_str(&report.not_told_lines());
    if !report.looked_on_topics {
        text.push_str("\nthe topics were not looked at");
    }
    for not_looked in &report.not_looked_on_topics {
        let _ = write!(text, "\nNOT LOOKED to the end of {}: {}", not_looked.topic, not_looked.why);
    }
    for (id, topic) in &report.not_found_on_topics {
        let _ =
            write!(text, "\n{id} was published and is not on {topic} (any more): its retention may be over");
    }
}

/// The steps in aligned columns.
fn table(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "no saga".to_owned();
    }
    let mut rows = vec![["SAGA", "STEP", "PHASE", "TRIES", "OUTCOME", "LATENCY"].map(str::to_owned)];
    rows.extend(steps.iter().map(|step| {
        let outcome = step.outcome.as_ref().map_or("no answer yet".to_owned(), word);
        let latency = step.latency_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        [
            step.saga.clone(),
            step.step.clone(),
            step.phase.clone(),
            step.attempts.to_string(),
            outcome,
            latency,
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}
