//! `waybillctl saga list | show | retry | skip | abandon`.

use std::fmt::Write as _;

use anyhow::ensure;
use serde_json::Value;

use crate::cli::{Asking, Page, Saga as Options, SagaChange, SagaVerb};
use crate::commands::change;
use crate::exit::Exit;
use crate::operator::answers::{Saga, SagaLine};
use crate::operator::{Found, Services, view};
use crate::output;
use crate::table::{Table, or_dash};
use crate::when::{short, short_or_dash};

/// Does what was asked for.
pub(crate) async fn run(saga: Options) -> anyhow::Result<Exit> {
    match saga.verb {
        SagaVerb::List { state, name, key, page, asking } => {
            let given = [("state", state), ("name", name), ("key", key)];
            let query: Vec<_> = given.into_iter().filter_map(|(n, value)| Some((n, value?))).collect();
            list(&query, page, &asking).await
        }
        SagaVerb::Show { name, key, asking } => {
            let services = Services::new(&asking.services)?;
            let found = find(&services, &name, &key).await?;
            let shown = found.service.named(found.value.clone());
            output::one(asking.form, &shown, || text(&shown))?;
            Ok(Exit::Done)
        }
        SagaVerb::Retry(options) => mend(options, "retry").await,
        SagaVerb::Skip(options) => mend(options, "skip").await,
        SagaVerb::Abandon(options) => mend(options, "abandon").await,
    }
}

async fn find<'a>(services: &'a Services, name: &str, key: &str) -> anyhow::Result<Found<'a>> {
    services.find(&["sagas", name, key], &format!("saga {name} of {key}")).await
}

async fn list(query: &[(&str, String)], page: Page, asking: &Asking) -> anyhow::Result<Exit> {
    let services = Services::new(&asking.services)?;
    let lists = services.each(|service| service.list_optional(&["sagas"], query, page.limit)).await?;
    // Only some services have sagas; none at all is no empty list.
    let lists: Vec<_> = lists.into_iter().filter_map(|(_, list)| list).collect();
    let names: Vec<&str> = services.all().iter().map(crate::operator::Service::name).collect();
    ensure!(!lists.is_empty(), "none of {} has sagas", names.join(", "));
    let mut listed = crate::operator::Listed::default();
    for list in lists {
        listed.complete &= list.complete;
        listed.items.extend(list.items);
    }
    output::list(asking.form, &listed, || {
        let mut table = Table::new(&[
            "saga", "key", "status", "step", "phase", "tries", "due", "since", "updated", "why",
        ]);
        for item in &listed.items {
            let saga: Saga = view(item)?;
            table.row([
                saga.saga,
                saga.key,
                saga.status,
                or_dash(&saga.step),
                or_dash(&saga.phase),
                saga.attempts.map_or("-".to_owned(), |attempts| attempts.to_string()),
                short_or_dash(&saga.due_at),
                short(&saga.created_at),
                short(&saga.updated_at),
                or_dash(&saga.stuck_why.or(saga.reason)),
            ]);
        }
        Ok(table.text("no saga fits"))
    })?;
    Ok(Exit::Done)
}

async fn mend(options: SagaChange, verb: &str) -> anyhow::Result<Exit> {
    let services = Services::new(&options.asking.services)?;
    let found = find(&services, &options.name, &options.key).await?;
    let saga: Saga = found.view()?;
    let step = saga.step.as_ref().map(|step| format!(" at {step}")).unwrap_or_default();
    let why = saga.stuck_why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let plan =
        format!("would {verb} saga {} of {}, which is {}{step}{why}", saga.saga, saga.key, saga.status);
    let path = ["sagas", &options.name, &options.key, verb];
    change::carry_out(&found, &path, &options.change, options.asking.form, &plan, text).await
}

fn text(shown: &Value) -> anyhow::Result<String> {
    let saga: Saga = view(shown)?;
    let mut text = String::new();
    let step = match (&saga.step, &saga.phase, saga.attempts) {
        (Some(step), phase, attempts) => {
            let attempts = attempts.map(|n| format!(", attempt {n}")).unwrap_or_default();
            format!("{step}{}{attempts}", phase.as_ref().map(|p| format!(" ({p})")).unwrap_or_default())
        }
        (None, ..) => "-".to_owned(),
    };
    let lines = [
        ("saga", format!("{} of {}", saga.saga, saga.key)),
        ("service", saga.service),
        ("status", format!("{} (version {})", saga.status, saga.version)),
        ("step", step),
        ("due", short_or_dash(&saga.due_at)),
        ("reason", or_dash(&saga.reason)),
        ("stuck because", or_dash(&saga.stuck_why)),
        ("correlation id", or_dash(&saga.correlation_id)),
        ("since, updated", format!("{}, {}", short(&saga.created_at), short(&saga.updated_at))),
    ];
    for (name, value) in lines {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{name:<15} {value}");
    }
    if !saga.data.is_null() {
        let _ = writeln!(text, "data            {}", saga.data);
    }
    for SagaLine { number, at, entry, .. } in &saga.log {
        let _ = writeln!(text, "  {number:>3} {} {entry}", short(at));
    }
    Ok(text.trim_end().to_owned())
}
