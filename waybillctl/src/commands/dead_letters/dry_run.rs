//! `dead-letters dry-run`: what the real handler would write and say, rolled back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use waybill_messaging::codec::untyped::Schemas;

use super::value;
use crate::cli::DryRun;
use crate::contract;
use crate::difference;
use crate::exit::Exit;
use crate::operator::answers::{Said, Tried, TriedLetters, Write};
use crate::operator::{Listed, Services, view};
use crate::output;
use crate::table::or_dash;

pub(super) async fn run(options: DryRun) -> anyhow::Result<Exit> {
    let services = Services::new(&options.asking.services)?;
    let body = json!({ "filter": options.selection.body()?, "limit": options.limit });
    let body = &body;
    let tried = services.each(|service| service.post::<Value>(&["dead-letters", "dry-run"], body)).await?;
    let mut listed = Listed::default();
    let mut total = 0;
    for (service, answer) in tried {
        let answer: TriedLetters = view(&answer)?;
        total += answer.total;
        listed.complete &= answer.items.len() as u64 >= answer.total;
        listed.items.extend(answer.items.into_iter().map(|item| service.named(item)));
    }
    let all: Vec<Tried> = listed.items.iter().map(view).collect::<anyhow::Result<_>>()?;
    let schemas = contract::schemas()?;
    output::list(options.asking.form, &listed, || text(&schemas, &all, total))?;
    let well = all.iter().all(|tried| matches!(tried.outcome.as_str(), "done" | "duplicate"));
    Ok(if well { Exit::Done } else { Exit::Differs })
}

fn text(schemas: &Schemas, all: &[Tried], total: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for tried in all {
        *outcomes.entry(&tried.outcome).or_default() += 1;
        let outcome = match tried.outcome.as_str() {
            "done" => "would be handled",
            "retry" => "would be retried",
            "reject" => "would be a dead letter again",
            "duplicate" => "ignored as duplicate",
            "fault" => "the handler fails",
            other => other,
        };
        let edited = if tried.patched { " (as edited)" } else { "" };
        let why = tried.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let (service, key) = (&tried.service, tried.key.shown());
        // Writing into a String does not fail.
        let _ = writeln!(text, "{} {service} key {key}{edited}: {outcome}{why}", tried.id);
        for write in &tried.writes {
            write_shown(&mut text, write);
        }
        for said in &tried.messages {
            said_shown(&mut text, schemas, said)?;
        }
    }
    if all.is_empty() {
        return Ok("no dead letter fits".to_owned());
    }
    let outcomes: Vec<String> =
        outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let of = if all.len() as u64 >= total { String::new() } else { format!(" of {total}") };
    let _ =
        write!(text, "tried {}{of}: {}; rolled back, nothing was changed", all.len(), outcomes.join(", "));
    Ok(text)
}

fn write_shown(text: &mut String, write: &Write) {
    let _ = writeln!(text, "  {} {}", write.operation, write.table);
    match (&write.before, &write.after) {
        (Some(before), Some(after)) => {
            for change in difference::of(before, after) {
                let _ = writeln!(text, "    {change}");
            }
        }
        (Some(row), None) => drop(writeln!(text, "    - {row}")),
        (None, Some(row)) => drop(writeln!(text, "    + {row}")),
        (None, None) => {}
    }
    if let Some(note) = &write.note {
        let _ = writeln!(text, "    ({note})");
    }
}

fn said_shown(text: &mut String, schemas: &Schemas, said: &Said) -> anyhow::Result<()> {
    let shown = value::shown(schemas, said.payload_base64.as_deref())?;
    let value = match (&shown.value, &shown.error) {
        (Some(value), _) => serde_json::to_string(value)?,
        (None, error) => or_dash(error),
    };
    let _ =
        writeln!(text, "  say {} to {} key {}: {value}", or_dash(&said.kind), said.topic, or_dash(&said.key));
    Ok(())
}
