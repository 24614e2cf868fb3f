//! Where text goes: results to standard output, everything else to standard error.

use std::io::Write as _;

use anyhow::Context as _;

/// Writes a result and a line end to standard output.
pub(crate) fn result(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("standard output takes no more")
}

/// Tells a person what is going on. Nobody depends on it, so that a closed standard error is no failure.
pub(crate) fn progress(text: &str) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}
