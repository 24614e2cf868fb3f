//! `dead-letters edit ID`: one value as JSON, from $EDITOR or a file, checked against its schema.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::value;
use crate::cli::Edit;
use crate::contract::{self, base64};
use crate::difference;
use crate::exit::{Exit, Usage};
use crate::operator::answers::DeadLetterDetail;
use crate::operator::{Found, Services};
use crate::output;

/// Longest JSON taken: a frame is at most a megabyte, its JSON a few times that.
const VALUE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(super) async fn run(options: Edit) -> anyhow::Result<Exit> {
    let id = options.id.as_deref().context("name a dead letter, or give --transform and a filter")?;
    let services = Services::new(&options.asking.services)?;
    let (found, detail) = open_letter(&services, id).await?;
    // Another operator's edit meanwhile is not written over.
    let seen = detail.patch.as_ref().map(|patch| patch.edited_at.as_str());
    if options.remove && seen.is_none() {
        return unchanged(&options);
    }
    if options.remove {
        let plan = format!("would take the patch of {id} away");
        let body = json!({ "payload_base64": null, "headers": {}, "expect_edited_at": seen });
        return save(&found, &options, body, &plan).await;
    }
    let schemas = contract::schemas()?;
    let before = value::current(&detail)?;
    let schema_id = value::schema_id(id, detail.letter.kind.as_deref(), before.as_deref())?;
    let before = before.map(|frame| schemas.decode(&frame)).transpose();
    let (edited, place) = match &options.value {
        Some(path) => (read(path)?, path.clone()),
        None => {
            let before = before.as_ref().map_err(|error| anyhow::anyhow!("{error}"));
            let before =
                before.context("the value can not be decoded: give a whole one with --value FILE")?;
            in_editor(id, &serde_json::to_string_pretty(before)?)?
        }
    };
    let kept = || format!("{} is kept: mend it and give it with --value {0}", place.display());
    let json: Value = serde_json::from_str(&edited).context("no JSON").with_context(kept)?;
    let frame = value::frame(&schemas, schema_id, &json).with_context(kept)?;
    let before = before.ok().and_then(|datum| serde_json::to_value(datum).ok()).unwrap_or_default();
    let after = serde_json::to_value(schemas.decode(&frame)?)?;
    let changes = difference::of(&before, &after);
    let draft = options.value.is_none().then_some(&place);
    if changes.is_empty() {
        if let Some(path) = draft {
            remove(path);
        }
        return unchanged(&options);
    }
    let plan = format!("would change {id}:\n  {}", changes.join("\n  "));
    let body = json!({ "payload_base64": base64(&frame), "expect_edited_at": seen });
    let saved = save(&found, &options, body, &plan).await;
    match draft {
        Some(path) if options.change.apply && saved.is_ok() => remove(path),
        Some(path) => {
            output::progress(&format!("the edited value is in {}: give it with --value", path.display()));
        }
        None => {}
    }
    saved
}

/// Tells that there is nothing to save.
pub(super) fn unchanged(options: &Edit) -> anyhow::Result<Exit> {
    let said = "nothing is changed";
    output::one(options.asking.form, &json!({ "applied": false, "plan": said }), || Ok(said.to_owned()))?;
    Ok(Exit::Done)
}

/// Takes a draft away: it is event data, and nobody needs this copy.
fn remove(draft: &Path) {
    if let Err(error) = std::fs::remove_file(draft) {
        output::progress(&format!("{} can not be removed: {error}", draft.display()));
    }
}

/// The dead letter, which can only be edited while it is open.
pub(super) async fn open_letter<'a>(
    services: &'a Services,
    id: &str,
) -> anyhow::Result<(Found<'a>, DeadLetterDetail)> {
    let found = services.find(&["dead-letters", id], &format!("dead letter {id}")).await?;
    let detail: DeadLetterDetail = found.view()?;
    let state = &detail.letter.state;
    ensure!(state == "open", "dead letter {id} is {state}: only open ones can be edited");
    Ok((found, detail))
}

/// Posts the edit when it is to be applied, else tells the plan.
pub(super) async fn save(
    found: &Found<'_>,
    options: &Edit,
    mut body: Value,
    plan: &str,
) -> anyhow::Result<Exit> {
    let id = options.id.as_deref().unwrap_or_default();
    if !options.change.apply {
        output::one(options.asking.form, &json!({ "applied": false, "plan": plan }), || {
            Ok(format!("{plan}\ndo it with --apply --reason TEXT and the same options"))
        })?;
        return Ok(Exit::Done);
    }
    body["reason"] = json!(options.change.reason);
    let after: Value = found.service.post(&["dead-letters", id, "edit"], &body).await?;
    output::one(
        options.asking.form,
        &json!({ "applied": true, "after": found.service.named(after) }),
        || {
            Ok(format!(
                "dead letter {id} is edited; its original bytes are kept. Try it: dead-letters dry-run --id {id}"
            ))
        },
    )?;
    Ok(Exit::Done)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(VALUE_BYTES_MAX)
            .read_to_string(&mut text)
            .context("standard input is no text")?;
    } else {
        let file =
            std::fs::File::open(path).with_context(|| format!("{} can not be read", path.display()))?;
        let read = file.take(VALUE_BYTES_MAX).read_to_string(&mut text);
        read.with_context(|| format!("{} is no text", path.display()))?;
    }
    Ok(text)
}

/// The text as it was left by the editor, and the draft it lies in.
fn in_editor(id: &str, text: &str) -> anyhow::Result<(String, PathBuf)> {
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|e| !e.is_empty()));
    let Some(editor) = editor else {
        bail!(Usage("no editor: set EDITOR, or give the value with --value FILE".to_owned()));
    };
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = std::env::temp_dir().join(format!("waybill-{id}-{}.json", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).and_then(|mut file| writeln!(file, "{text}"));
    file.with_context(|| format!("{} can not be written", path.display()))?;
    // Through a shell, since an editor often is a command with options.
    let run = Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(&path).status();
    if !run.as_ref().is_ok_and(ExitStatus::success) {
        remove(&path);
    }
    let run = run.with_context(|| format!("the editor {editor:?} can not be run"))?;
    ensure!(run.success(), "the editor {editor:?} ended with {run}: nothing is changed");
    Ok((read(&path)?, path))
}
