//! One change of one thing: its plan without `--apply`, else the request and what it made of the thing.

use serde_json::{Value, json};

use crate::cli::{Change, Form};
use crate::exit::Exit;
use crate::operator::Found;
use crate::output;

/// Posts the reason to `path` when `--apply` is given; `text` shows the answer, which has the service's name in it.
pub(crate) async fn carry_out(
    found: &Found<'_>,
    path: &[&str],
    change: &Change,
    form: Form,
    plan: &str,
    text: impl FnOnce(&Value) -> anyhow::Result<String>,
) -> anyhow::Result<Exit> {
    if !change.apply {
        let before = found.service.named(found.value.clone());
        output::one(form, &json!({ "applied": false, "plan": plan, "before": before }), || {
            Ok(format!("{plan}\ndo it with --apply --reason TEXT and the same options"))
        })?;
        return Ok(Exit::Done);
    }
    let after: Value = found.service.post(path, &json!({ "reason": change.reason })).await?;
    let after = found.service.named(after);
    output::one(form, &json!({ "applied": true, "after": after }), || text(&after))?;
    Ok(Exit::Done)
}
