//! `dead-letters edit ID --header NAME=VALUE --without-header NAME`: other headers for a replay, beside the original's.

use anyhow::Context as _;
use serde_json::json;

use super::edit::{open_letter, save, unchanged};
use crate::cli::Edit;
use crate::exit::Exit;
use crate::operator::Services;
use crate::operator::answers::HeaderChanges;

/// Adds to the changes of headers that the letter has; its value stays as it is. Which headers are the protocol's, and that
/// they can be read with the changes, the service looks after.
pub(super) async fn run(options: Edit) -> anyhow::Result<Exit> {
    let id = options.id.as_deref().context("name a dead letter")?;
    let services = Services::new(&options.asking.services)?;
    let (found, detail) = open_letter(&services, id).await?;
    let patch = detail.patch.as_ref();
    let before = patch.and_then(|patch| patch.headers.clone()).unwrap_or_default();
    let mut after = before.clone();
    after.extend(options.headers.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
    after.extend(options.without_headers.iter().map(|name| (name.clone(), None)));
    if after == before {
        return unchanged(&options);
    }
    let plan = format!("would change the headers that a replay of {id} sends:\n{}", lines(&after));
    let body = json!({
        "payload_base64": patch.and_then(|patch| patch.payload_base64.as_deref()),
        "headers": after,
        "expect_edited_at": patch.map(|patch| patch.edited_at.as_str()),
    });
    save(&found, &options, body, &plan).await
}

/// Changes for people, a line each.
pub(super) fn lines(changes: &HeaderChanges) -> String {
    let line = |(name, value): (&String, &Option<String>)| match value {
        Some(value) => format!("  header {name}: {value}"),
        None => format!("  without header {name}"),
    };
    changes.iter().map(line).collect::<Vec<_>>().join("\n")
}
