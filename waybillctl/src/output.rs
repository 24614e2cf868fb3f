//! Where text goes: results to standard output, everything else to standard error.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::Form;
use crate::operator::Listed;

/// What is said when standard output is closed.
pub(crate) const CLOSED: &str = "standard output takes no more";

/// Whether this is about a reader of standard output that has seen enough (`| head`).
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    error.to_string() == CLOSED && causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Writes a result and a line end to standard output.
pub(crate) fn result(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context(CLOSED)
}

/// Tells a person what is going on. Nobody depends on it, so that a closed standard error is no failure.
pub(crate) fn progress(text: &str) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}

/// Writes a list: `{"items": [...], "complete": ...}`, or the text made of it. That there is more is said either way.
pub(crate) fn list(
    form: Form,
    listed: &Listed,
    text: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    if form.json {
        return result(&json!({ "items": listed.items, "complete": listed.complete }).to_string());
    }
    result(&text()?)?;
    if !listed.complete {
        progress("there are more: --limit N shows them");
    }
    Ok(())
}

/// Writes one value as JSON, or the text made of it.
pub(crate) fn one(
    form: Form,
    value: &Value,
    text: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    result(&if form.json { value.to_string() } else { text()? })
}
