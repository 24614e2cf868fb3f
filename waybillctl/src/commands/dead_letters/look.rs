//! `dead-letters list | groups | show`.

use std::fmt::Write as _;

use serde_json::json;

use super::{edit_headers, value};
use crate::cli::{Asking, Filter, Page};
use crate::contract::{self, ShownValue};
use crate::exit::Exit;
use crate::operator::answers::{DeadLetter, DeadLetterDetail, FailureGroup, GivenUp, Header};
use crate::operator::{Services, view};
use crate::output;
use crate::table::{Table, or_dash};
use crate::when::{short, short_or_dash};

pub(super) async fn list(filter: &Filter, page: Page, asking: &Asking) -> anyhow::Result<Exit> {
    let services = Services::new(&asking.services)?;
    let listed = services.list(&["dead-letters"], &filter.given(), page.limit).await?;
    output::list(asking.form, &listed, || {
        let columns =
            ["id", "service", "group", "state", "type", "key", "class", "error", "tries", "last failed"];
        let mut table = Table::new(&columns);
        for item in &listed.items {
            let letter: DeadLetter = view(item)?;
            let state = if letter.patched { format!("{} (edited)", letter.state) } else { letter.state };
            table.row([
                letter.id,
                letter.service,
                letter.group,
                state,
                or_dash(&letter.kind),
                letter.key.shown(),
                letter.error_class,
                letter.error_message,
                letter.attempts.to_string(),
                short(&letter.last_failed_at),
            ]);
        }
        Ok(table.text("no dead letter fits"))
    })?;
    Ok(Exit::Done)
}

pub(super) async fn groups(filter: &Filter, page: Page, asking: &Asking) -> anyhow::Result<Exit> {
    let services = Services::new(&asking.services)?;
    let listed = services.list(&["failure-groups"], &filter.given(), page.limit).await?;
    output::list(asking.form, &listed, || {
        let columns = [
            "failure group",
            "service",
            "group",
            "type",
            "class",
            "error",
            "letters",
            "keys",
            "last failed",
            "example",
        ];
        let mut table = Table::new(&columns);
        for item in &listed.items {
            let group: FailureGroup = view(item)?;
            table.row([
                group.failure_group,
                group.service,
                group.group,
                or_dash(&group.kind),
                group.error_class,
                group.message,
                group.count.to_string(),
                group.keys.to_string(),
                short(&group.last_failed_at),
                or_dash(&group.example),
            ]);
        }
        Ok(table.text("no dead letter fits"))
    })?;
    Ok(Exit::Done)
}

pub(super) async fn show(id: &str, asking: &Asking) -> anyhow::Result<Exit> {
    let services = Services::new(&asking.services)?;
    let found = services.find(&["dead-letters", id], &format!("dead letter {id}")).await?;
    let detail: DeadLetterDetail = found.view()?;
    let schemas = contract::schemas()?;
    let original = value::shown(&schemas, detail.payload_base64.as_deref())?;
    let patch = detail.patch.as_ref().and_then(|patch| patch.payload_base64.as_deref());
    let patch = patch.map(|payload| value::shown(&schemas, Some(payload)));
    let patch = patch.transpose()?;
    let mut shown = found.service.named(found.value.clone());
    shown["decoded"] = json!({ "original": original, "patch": patch });
    let values = (&original, patch.as_ref());
    output::one(asking.form, &shown, || text(found.service.name(), &detail, values))?;
    Ok(Exit::Done)
}

/// `values` are the original and the patch.
fn text(
    service: &str,
    detail: &DeadLetterDetail,
    values: (&ShownValue, Option<&ShownValue>),
) -> anyhow::Result<String> {
    let letter = &detail.letter;
    let mut text = String::new();
    let lines = [
        ("dead letter", letter.id.clone()),
        ("service, group", format!("{service}, {}", letter.group)),
        ("state", letter.state.clone()),
        ("message", format!("{} {}", or_dash(&letter.kind), or_dash(&letter.message_id))),
        ("place", format!("{}[{}]@{} (hop {})", letter.topic, letter.partition, letter.offset, letter.hop)),
        ("key", letter.key.shown()),
        ("error", format!("{}: {}", letter.error_class, letter.error_message.replace('\n', " "))),
        ("failure group", or_dash(&letter.failure_group)),
        (
            "tries",
            format!(
                "{}, {} to {}",
                letter.attempts,
                short(&letter.first_failed_at),
                short(&letter.last_failed_at)
            ),
        ),
        ("correlation id", or_dash(&letter.correlation_id)),
        ("trace id", or_dash(&letter.trace_id)),
    ];
    for (name, value) in lines {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{name:<15} {value}");
    }
    let _ = writeln!(text, "headers");
    for Header { name, value, base64 } in &detail.headers {
        let value = value.clone().unwrap_or_else(|| format!("base64:{}", or_dash(base64)));
        let _ = writeln!(text, "  {name}: {value}");
    }
    let _ = writeln!(text, "value");
    let _ = writeln!(text, "{}", value::pretty(values.0)?);
    if let Some(patch) = &detail.patch {
        let when = short(&patch.edited_at);
        let _ = writeln!(text, "edited by {} at {when}: {}", patch.edited_by, patch.reason);
        if let Some(changes) = &patch.headers {
            let _ = writeln!(text, "{}", edit_headers::lines(changes));
        }
        if let Some(value) = values.1 {
            let _ = writeln!(text, "{}", value::pretty(value)?);
        }
    }
    for replay in &detail.replays {
        let (when, outcome) = (short_or_dash(&replay.at), or_dash(&replay.outcome));
        let why = replay.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let _ = writeln!(text, "replayed {when} by {}: {outcome}{why}", replay.operation);
    }
    if let Some(GivenUp { by, at, reason }) = &detail.discarded {
        let _ = writeln!(text, "discarded by {by} at {}: {reason}", short(at));
    }
    Ok(text.trim_end().to_owned())
}
