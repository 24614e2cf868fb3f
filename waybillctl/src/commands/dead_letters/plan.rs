//! `dead-letters plan`, and the plan before a replay or a discard.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::{Asking, Filter};
use crate::exit::Exit;
use crate::operator::answers::Plan;
use crate::operator::{Service, Services, view};
use crate::output;
use crate::table::{Table, or_dash};
use crate::when::short_or_dash;

/// What one service has of a selection.
pub(super) struct Planned<'a> {
    pub(super) service: &'a Service,
    pub(super) plan: Plan,
    raw: Value,
}

pub(super) async fn run(filter: &Filter, asking: &Asking) -> anyhow::Result<Exit> {
    let services = Services::new(&asking.services)?;
    let planned = all(&services, &filter.body()).await?;
    output::one(asking.form, &as_json(&planned), || Ok(text(&planned)))?;
    Ok(Exit::Done)
}

/// Asks every service for the plan of a selection.
pub(super) async fn all<'a>(services: &'a Services, filter: &Value) -> anyhow::Result<Vec<Planned<'a>>> {
    let body = json!({ "filter": filter });
    let body = &body;
    let plans = services.each(|service| service.post::<Value>(&["dead-letters", "plan"], body)).await?;
    let planned = plans.into_iter().map(|(service, raw)| Ok(Planned { service, plan: view(&raw)?, raw }));
    planned.collect()
}

pub(super) fn total(planned: &[Planned<'_>]) -> u64 {
    planned.iter().map(|planned| planned.plan.total).sum()
}

pub(super) fn as_json(planned: &[Planned<'_>]) -> Value {
    let services: Vec<Value> =
        planned.iter().map(|planned| planned.service.named(planned.raw.clone())).collect();
    json!({ "total": total(planned), "services": services })
}

pub(super) fn text(planned: &[Planned<'_>]) -> String {
    let mut text = String::new();
    let mut keys = Table::new(&["service", "key", "letters", "key is", "held behind"]);
    for Planned { service, plan, .. } in planned.iter().filter(|planned| planned.plan.total > 0) {
        let groups: Vec<String> =
            plan.by_group.iter().map(|group| format!("{} {}", group.group, group.count)).collect();
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "{}: {} dead letters of {} keys ({}), last failed {} to {}",
            service.name(),
            plan.total,
            plan.keys,
            groups.join(", "),
            short_or_dash(&plan.oldest),
            short_or_dash(&plan.newest)
        );
        if plan.can_not_travel > 0 {
            let _ = writeln!(
                text,
                "  {} of them can not be sent again (no key, headers that can not be read, or too large): edit or discard them",
                plan.can_not_travel
            );
        }
        for key in &plan.by_key {
            let name = service.name().to_owned();
            let (count, held) = (key.count.to_string(), key.held.to_string());
            keys.row([name, key.key.shown(), count, or_dash(&key.parked_state), held]);
        }
        let shown = plan.by_key.len() as u64;
        if shown < plan.keys {
            let _ = writeln!(text, "  the {shown} keys with most:");
        }
    }
    text.push_str(&keys.text("no dead letter fits"));
    text
}
