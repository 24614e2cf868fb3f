//! `waybillctl outbox status | republish`.

use std::fmt::Write as _;

use chrono::SecondsFormat;
use serde_json::{Value, json};

use crate::cli::{Form, Outbox, OutboxVerb, Republish};
use crate::exit::{Exit, Usage};
use crate::operator::answers::{OutboxStatus, Republication};
use crate::operator::{Listed, Services, view};
use crate::output;
use crate::table::{Table, bytes, or_dash};
use crate::when::{short, short_or_dash};

/// Does what was asked for.
pub(crate) async fn run(outbox: Outbox) -> anyhow::Result<Exit> {
    match outbox.verb {
        OutboxVerb::Status { asking } => status(&Services::new(&asking.services)?, asking.form).await,
        OutboxVerb::Republish(options) => republish(options).await,
    }
}

async fn status(services: &Services, form: Form) -> anyhow::Result<Exit> {
    let answers = services.each(|service| service.get::<Value>(&["outbox"], &[])).await?;
    let items = answers.into_iter().map(|(service, answer)| service.named(answer));
    let listed = Listed { items: items.collect(), complete: true };
    output::list(form, &listed, || {
        let all: Vec<String> = listed.items.iter().map(text).collect::<anyhow::Result<_>>()?;
        Ok(all.join("\n\n"))
    })?;
    Ok(Exit::Done)
}

fn text(item: &Value) -> anyhow::Result<String> {
    let status: OutboxStatus = view(item)?;
    let mut text = String::new();
    let rows = status.unpublished_rows.map_or("more than 1000000".to_owned(), |rows| rows.to_string());
    let waiting = match &status.oldest_unpublished_at {
        Some(since) => format!("{rows} rows, the oldest since {}", short(since)),
        None => "nothing".to_owned(),
    };
    // Writing into a String does not fail.
    let _ = writeln!(text, "{}", item["service"].as_str().unwrap_or("-"));
    let _ = writeln!(text, "  unpublished  {waiting}");
    if let Some(lease) = &status.lease {
        let until = short_or_dash(&lease.expires_at);
        let _ =
            writeln!(text, "  relay        {} until {until}, epoch {}", or_dash(&lease.owner), lease.epoch);
    }
    if let Some(position) = &status.position {
        let inside = match (&position.to, position.id) {
            (Some(to), Some(id)) => format!(", inside a round to {to} after row {id}"),
            _ => String::new(),
        };
        let _ = writeln!(text, "  position     {}{inside}", or_dash(&position.from));
    }
    let mut table = Table::new(&["  partition", "from", "to", "rows (about)", "size", "published"]);
    for partition in status.partitions {
        table.row([
            format!("  {}", partition.name),
            short(&partition.from),
            short(&partition.to),
            partition.rows_estimate.to_string(),
            bytes(partition.bytes),
            if partition.published { "all".to_owned() } else { "not all".to_owned() },
        ]);
    }
    text.push_str(&table.text("  no partitions"));
    Ok(text)
}

async fn republish(options: Republish) -> anyhow::Result<Exit> {
    let services = Services::new(&options.asking.services)?;
    let mut body = json!({ "limit": options.limit, "apply": options.change.apply });
    body["reason"] = json!(options.change.reason.as_deref().unwrap_or("looking at the plan"));
    if let (Some(from), Some(to)) = (options.from, options.to) {
        body["from"] = json!(from.to_rfc3339_opts(SecondsFormat::Micros, true));
        body["to"] = json!(to.to_rfc3339_opts(SecondsFormat::Micros, true));
    }
    if let (Some(from), Some(to)) = (options.from_id, options.to_id) {
        // Numbers and message ids are one database's.
        body["from_id"] = json!(from);
        body["to_id"] = json!(to);
    }
    if !options.message_id.is_empty() {
        body["message_ids"] = json!(options.message_id);
    }
    let by_number = options.from_id.is_some() && options.asking.services.service.is_none();
    anyhow::ensure!(!by_number, Usage("row numbers are one outbox's: name it with --service".to_owned()));
    let body = &body;
    let answers = services.each(|service| service.post::<Value>(&["outbox", "republish"], body)).await?;
    let items = answers.into_iter().map(|(service, answer)| service.named(answer));
    let listed = Listed { items: items.collect(), complete: true };
    let applied = options.change.apply;
    let by_message = !options.message_id.is_empty();
    output::list(options.asking.form, &listed, || {
        let mut table = Table::new(&["service", "topic", "rows", "first", "last"]);
        let mut total = 0;
        let mut searched = None;
        for item in &listed.items {
            let made: Republication = view(item)?;
            total += made.rows;
            searched = made.searched_from.or(searched);
            for topic in &made.topics {
                table.row([
                    item["service"].as_str().unwrap_or("-").to_owned(),
                    topic.topic.clone(),
                    topic.count.to_string(),
                    short_or_dash(&made.first_at),
                    short_or_dash(&made.last_at),
                ]);
            }
        }
        let end = match (total, applied) {
            (0, _) => "",
            (_, true) => "\nthey are in the outbox again, with the same ids in the same order",
            (_, false) => "\npublish them again with --apply --reason TEXT and the same options",
        };
        let looked = match (&searched, by_message) {
            (Some(from), true) => {
                format!("\nlooked for where the ids say: in rows made from {} on", short(from))
            }
            (None, true) => "\nlooked for in all rows: not every id says when it was made".to_owned(),
            (_, false) => String::new(),
        };
        Ok(format!("{}{looked}{end}", table.text("no row fits")))
    })?;
    Ok(Exit::Done)
}
