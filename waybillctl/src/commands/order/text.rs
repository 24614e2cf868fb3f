//! The story for people.

use std::fmt::Write as _;

use chrono::DateTime;

use super::facts::Story;
use super::places::Places;
use super::steps::{Step, word};
use super::timeline::{Entry, What};
use crate::table::Table;

/// A timeline, the saga's steps, and what is to be looked at.
pub(super) fn of(
    order: &str,
    story: &Story,
    places: &Places,
    steps: &[Step],
    timeline: &[Entry],
    looked: bool,
) -> String {
    let mut text = String::new();
    let traces: Vec<&str> = story.trace_ids().into_iter().collect();
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "order {order}, trace {}",
        if traces.is_empty() { "-".to_owned() } else { traces.join(", ") }
    );
    let mut day = String::new();
    for entry in timeline {
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
        let _ = writeln!(text, "  {clock} {:<10} {mark:<8} {}", entry.service, entry.title);
    }
    let mut table = Table::new(&["saga", "step", "phase", "tries", "outcome", "latency"]);
    for step in steps {
        let outcome = step.outcome.as_ref().map_or("no answer yet".to_owned(), word);
        let latency = step.latency_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        let (saga, name, phase) = (step.saga.clone(), step.step.clone(), step.phase.clone());
        table.row([saga, name, phase, step.attempts.to_string(), outcome, latency]);
    }
    text.push_str(&table.text("no saga"));
    if looked {
        for (id, topic) in places.missing(story) {
            let _ = write!(
                text,
                "\n{id} was published and is not on {topic} (any more): its retention may be over"
            );
        }
    } else {
        text.push_str("\nthe topics were not looked at");
    }
    text
}
