//! `waybillctl parked list | show`: keys that wait because a message of theirs failed.

use std::fmt::Write as _;

use crate::cli::{Parked, ParkedVerb};
use crate::exit::Exit;
use crate::operator::answers::ParkedKey;
use crate::operator::{Services, view};
use crate::output;
use crate::table::{Table, bytes, or_dash};
use crate::when::{short, short_or_dash};

/// Does what was asked for.
pub(crate) async fn run(parked: Parked) -> anyhow::Result<Exit> {
    match parked.verb {
        ParkedVerb::List { group, page, asking } => {
            let services = Services::new(&asking.services)?;
            let query: Vec<_> = group.map(|group| ("group", group)).into_iter().collect();
            let listed = services.list(&["parked"], &query, page.limit).await?;
            output::list(asking.form, &listed, || {
                let columns = [
                    "service", "group", "key", "state", "tier", "due", "tries", "held", "bytes", "since",
                    "error",
                ];
                let mut table = Table::new(&columns);
                for item in &listed.items {
                    let parked: ParkedKey = view(item)?;
                    let (key, error) = (parked.key.shown(), error(&parked));
                    table.row([
                        parked.service,
                        parked.group,
                        key,
                        parked.state,
                        parked.tier.to_string(),
                        short_or_dash(&parked.due_at),
                        parked.attempts.to_string(),
                        parked.held_count.to_string(),
                        bytes(parked.held_bytes),
                        short(&parked.parked_at),
                        error,
                    ]);
                }
                Ok(table.text("no key is parked"))
            })?;
        }
        ParkedVerb::Show { group, key, asking } => {
            let services = Services::new(&asking.services)?;
            let what = format!("parked key {key} of group {group}");
            let found = services.find(&["parked", &group, &key], &what).await?;
            let parked: ParkedKey = found.view()?;
            let shown = found.service.named(found.value.clone());
            output::one(asking.form, &shown, || Ok(text(found.service.name(), &parked)))?;
        }
    }
    Ok(Exit::Done)
}

fn error(parked: &ParkedKey) -> String {
    match (&parked.error_class, &parked.error_message) {
        (None, None) => "-".to_owned(),
        (class, message) => format!("{}: {}", or_dash(class), or_dash(message)),
    }
}

fn text(service: &str, parked: &ParkedKey) -> String {
    let mut text = String::new();
    let lines = [
        ("key", parked.key.shown()),
        ("service, group", format!("{service}, {}", parked.group)),
        ("state", format!("{} since {}", parked.state, short(&parked.parked_at))),
        ("tier", format!("{}, due {}", parked.tier, short_or_dash(&parked.due_at))),
        ("tries", parked.attempts.to_string()),
        ("error", error(parked)),
        ("dead letter", or_dash(&parked.dead_letter_id)),
        ("held", format!("{} messages, {}", parked.held_count, bytes(parked.held_bytes))),
    ];
    for (name, value) in lines {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{name:<15} {value}");
    }
    let mut table = Table::new(&["message", "type", "place", "held since", "bytes"]);
    for held in &parked.held {
        table.row([
            or_dash(&held.message_id),
            or_dash(&held.kind),
            format!("{}[{}]@{}", held.topic, held.partition, held.offset),
            short(&held.held_at),
            bytes(held.bytes),
        ]);
    }
    text.push_str(&table.text("nothing waits behind it"));
    if (parked.held.len() as u64) < parked.held_count {
        let _ = write!(text, "\nthe first {} of {}", parked.held.len(), parked.held_count);
    }
    text
}
