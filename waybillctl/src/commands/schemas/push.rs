//! `schemas push`: what is missing in a registry, registered under the ids that the frames carry.

use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use super::compare::{Finding, State, with_registry};
use super::local::Message;
use super::registry::Registry;
use crate::cli::Push;
use crate::exit::{Exit, Usage};
use crate::output;

/// `--json`, as a contract: fields are added, never changed.
#[derive(Serialize)]
struct Report {
    /// Whether the registry has every schema under its id now.
    as_declared: bool,
    applied: bool,
    registered: Vec<String>,
    missing: Vec<String>,
    wrong: Vec<Finding>,
    unchanged: usize,
}

pub(super) async fn run(options: Push) -> anyhow::Result<Exit> {
    let registry = super::connect(&options.registry)?
        .context(Usage("no registry is named: give --registry URL, or set SCHEMA_REGISTRY_URL".to_owned()))?;
    let local = super::load(options.schemas.as_deref())?;
    output::progress(&format!("asking the registry at {}", registry.url()));
    let mut wrong = local.findings.clone();
    let mut missing = Vec::new();
    for message in &local.messages {
        let versions = registry.versions(message).await?;
        let finding = with_registry(message, &versions);
        match finding.state {
            State::AsReleased => {}
            State::New => {
                missing.push((message, 1 + versions.iter().map(|v| v.version).max().unwrap_or_default()));
            }
            State::Wrong => wrong.push(finding),
        }
    }
    let unchanged =
        local.messages.len() - missing.len() - wrong.len().min(local.messages.len() - missing.len());
    let mut report = Report {
        as_declared: missing.is_empty() && wrong.is_empty(),
        applied: options.apply,
        registered: Vec::new(),
        missing: missing.iter().map(|(message, _)| message.name.clone()).collect(),
        wrong,
        unchanged,
    };
    if options.apply && report.wrong.is_empty() {
        for (message, version) in missing {
            register(&registry, message, version).await?;
            output::progress(&format!("registered {} as id {}", message.name, message.id));
            report.registered.push(message.name.clone());
        }
        report.missing.clear();
        report.as_declared = true;
    }
    output::result(&if options.form.json { serde_json::to_string(&report)? } else { report.text() })?;
    Ok(if report.as_declared { Exit::Done } else { Exit::Differs })
}

async fn register(registry: &Registry, message: &Message, version: u32) -> anyhow::Result<()> {
    let (id, name) = (message.id, &message.name);
    let subject = registry.subject(message)?;
    if registry.import_mode(&subject, true).await? {
        let registered = registry.register(&subject, &message.schema, Some((id, version))).await;
        let back = registry.import_mode(&subject, false).await;
        let given = registered.with_context(|| format!("{name} could not be registered"))?;
        back.with_context(|| {
            format!("{subject} is registered, and still in mode IMPORT: set READWRITE by hand")
        })?;
        ensure!(given == id, "the registry gave {name} id {given}, though its frames carry {id}");
        return Ok(());
    }
    // A registry without modes counts by itself: right when ours come in order into an empty one.
    if registry.id_is_taken(id).await? {
        bail!(
            "{name} needs id {id}, which the registry at {} has given away, and it can not import ids: \
             push to an empty registry, or to one with modes",
            registry.url()
        );
    }
    let given = registry.register(&subject, &message.schema, None).await;
    let given = given.with_context(|| format!("{name} could not be registered"))?;
    if given != id {
        bail!(
            "the registry gave {name} id {given}, though its frames carry {id}, and it can not import ids: \
             delete {subject} there and push to an empty registry, or to one with modes"
        );
    }
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.wrong {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{finding}");
        }
        for name in &self.registered {
            let _ = writeln!(text, "done  {name}");
        }
        for name in &self.missing {
            let _ = writeln!(text, "new   {name}");
        }
        let Self { registered, missing, wrong, unchanged, .. } = self;
        let (registered, missing, wrong) = (registered.len(), missing.len(), wrong.len());
        let _ = write!(
            text,
            "{unchanged} as they are, {registered} registered, {missing} missing, {wrong} wrong"
        );
        if wrong > 0 && self.applied {
            text.push_str("\nnothing was registered: mend what is wrong first");
        } else if missing > 0 {
            text.push_str("\nregister what is missing with --apply and the same options");
        }
        text
    }
}
