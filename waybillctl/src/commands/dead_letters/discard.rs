//! `dead-letters discard`: given up for good, after the plan.

use serde_json::{Value, json};

use super::plan::{self, Planned};
use crate::cli::Discard;
use crate::exit::Exit;
use crate::operator::answers::Discarded;
use crate::operator::{Services, view};
use crate::output;

pub(super) async fn run(options: Discard) -> anyhow::Result<Exit> {
    let services = Services::new(&options.asking.services)?;
    let filter = options.selection.body_of_open()?;
    let planned = plan::all(&services, &filter).await?;
    if !options.change.apply {
        output::one(options.asking.form, &plan::as_json(&planned), || {
            Ok(format!(
                "{}\ngive them up with --apply --reason TEXT and the same options",
                plan::text(&planned)
            ))
        })?;
        return Ok(Exit::Done);
    }
    let mut answers = Vec::new();
    let mut total = 0;
    for Planned { service, plan, .. } in planned.iter().filter(|planned| planned.plan.total > 0) {
        // What was planned is what is given up: a count that has changed since is refused by the service.
        let body = json!({ "filter": filter, "reason": options.change.reason, "expect": plan.total });
        let answer: Value = service.post(&["dead-letters", "discard"], &body).await?;
        let discarded = view::<Discarded>(&answer)?.discarded;
        output::progress(&format!("{}: {discarded} discarded", service.name()));
        total += discarded;
        answers.push(service.named(answer));
    }
    output::one(options.asking.form, &json!({ "discarded": total, "services": answers }), || {
        Ok(format!("{total} dead letters discarded"))
    })?;
    Ok(Exit::Done)
}
