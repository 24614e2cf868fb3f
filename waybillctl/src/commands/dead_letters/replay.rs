//! `dead-letters replay ...`: start one, look at them, let them go on or not.

use serde_json::{Value, json};

use super::plan;
use crate::cli::{Asking, Form, Page, Replay as Options, ReplayChange, ReplayStart, ReplayVerb};
use crate::commands::change;
use crate::exit::Exit;
use crate::operator::answers::Replay;
use crate::operator::{Listed, Services, view};
use crate::output;
use crate::table::{Table, or_dash};
use crate::watch::{self, Watched};
use crate::when::short;

pub(super) async fn run(options: Options) -> anyhow::Result<Exit> {
    match options.verb {
        None => start(options.start).await,
        Some(ReplayVerb::List { page, asking }) => list(page, &asking).await,
        Some(ReplayVerb::Show { id, asking }) => show(&id, &asking, false).await,
        Some(ReplayVerb::Watch { id, asking }) => show(&id, &asking, true).await,
        Some(ReplayVerb::Resume(options)) => change(options, "resume").await,
        Some(ReplayVerb::Pause(options)) => change(options, "pause").await,
        Some(ReplayVerb::Cancel(options)) => change(options, "cancel").await,
    }
}

async fn start(options: ReplayStart) -> anyhow::Result<Exit> {
    let services = Services::new(&options.asking.services)?;
    let filter = options.selection.body_of_open()?;
    let planned = plan::all(&services, &filter).await?;
    if !options.change.apply {
        output::one(options.asking.form, &plan::as_json(&planned), || {
            Ok(format!("{}\nsend them with --apply --reason TEXT and the same options", plan::text(&planned)))
        })?;
        return Ok(Exit::Done);
    }
    if plan::total(&planned) == 0 {
        output::one(options.asking.form, &json!({ "items": [], "complete": true }), || {
            Ok("no dead letter fits".to_owned())
        })?;
        return Ok(Exit::Done);
    }
    let body = json!({
        "filter": filter,
        "reason": options.change.reason,
        "rate_per_s": options.rate,
        "ramp": !options.without_ramp,
        "stop_after_failures": options.stop_after_failures,
    });
    let mut started = Vec::new();
    for planned in planned.iter().filter(|planned| planned.plan.total > 0) {
        let service = planned.service;
        let raw: Value = service.post(&["replays"], &body).await?;
        let replay: Replay = view(&raw)?;
        output::progress(&format!(
            "{}: replay {} of {} dead letters",
            service.name(),
            replay.id,
            replay.total
        ));
        started.push(Watched { service, id: replay.id, raw });
    }
    if !options.detach {
        watch::until_ended(&mut started).await?;
    }
    shown(options.asking.form, &started)
}

async fn show(id: &str, asking: &Asking, wait: bool) -> anyhow::Result<Exit> {
    let services = Services::new(&asking.services)?;
    let found = services.find(&["replays", id], &format!("replay {id}")).await?;
    let mut watched = vec![Watched { service: found.service, id: id.to_owned(), raw: found.value }];
    if wait {
        watch::until_ended(&mut watched).await?;
    }
    shown(asking.form, &watched)
}

async fn list(page: Page, asking: &Asking) -> anyhow::Result<Exit> {
    let services = Services::new(&asking.services)?;
    let listed = services.list(&["replays"], &[], page.limit).await?;
    output::list(asking.form, &listed, || text(&listed))?;
    Ok(Exit::Done)
}

/// Prints replays and tells whether each went well so far.
fn shown(form: Form, watched: &[Watched<'_>]) -> anyhow::Result<Exit> {
    let items = watched.iter().map(|watched| watched.service.named(watched.raw.clone()));
    let listed = Listed { items: items.collect(), complete: true };
    output::list(form, &listed, || text(&listed))?;
    let replays = listed.items.iter().map(view).collect::<anyhow::Result<Vec<Replay>>>()?;
    let well = replays.iter().all(|replay| {
        // A skipped letter may be open still: somebody else was at it, or it can not be sent.
        let done = replay.state == "finished" && replay.failed == 0 && replay.skipped == 0;
        done || replay.state == "running"
    });
    Ok(if well { Exit::Done } else { Exit::Differs })
}

fn text(listed: &Listed) -> anyhow::Result<String> {
    let columns = [
        "replay",
        "service",
        "state",
        "letters",
        "sent",
        "resolved",
        "failed",
        "skipped",
        "remaining",
        "began",
        "by",
        "reason",
        "stopped because",
    ];
    let mut table = Table::new(&columns);
    for item in &listed.items {
        let replay: Replay = view(item)?;
        table.row([
            replay.id,
            replay.service,
            replay.state,
            replay.total.to_string(),
            replay.sent.to_string(),
            replay.resolved.to_string(),
            replay.failed.to_string(),
            replay.skipped.to_string(),
            replay.remaining.to_string(),
            short(&replay.created_at),
            replay.by,
            replay.reason,
            or_dash(&replay.stop_reason),
        ]);
    }
    Ok(table.text("no replay"))
}

async fn change(options: ReplayChange, verb: &str) -> anyhow::Result<Exit> {
    let services = Services::new(&options.asking.services)?;
    let id = options.id.as_str();
    let found = services.find(&["replays", id], &format!("replay {id}")).await?;
    let before: Replay = found.view()?;
    let plan = format!("would {verb} replay {id} of {}, which is {}", found.service.name(), before.state);
    let path = ["replays", id, verb];
    change::carry_out(&found, &path, &options.change, options.asking.form, &plan, |after| {
        let listed = Listed { items: vec![after.clone()], complete: true };
        text(&listed)
    })
    .await
}
