//! `waybillctl schemas check | push`: the message contract against itself, its history and a registry.

mod compare;
mod history;
mod local;
mod push;
mod registry;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use self::compare::Finding;
use self::local::Local;
use self::registry::Registry;
use crate::cli::{Check, RegistryOption, Schemas, SchemasVerb};
use crate::exit::Exit;
use crate::output;

/// Does what was asked for.
pub(crate) async fn run(schemas: Schemas) -> anyhow::Result<Exit> {
    match schemas.verb {
        SchemasVerb::Check(options) => check(options).await,
        SchemasVerb::Push(options) => push::run(options).await,
    }
}

async fn check(options: Check) -> anyhow::Result<Exit> {
    let local = load(options.schemas.as_deref())?;
    let mut findings = local.findings.clone();
    let mut compared = Vec::new();
    if let Some(registry) = connect(&options.registry)? {
        output::progress(&format!("asking the registry at {}", registry.url()));
        for message in &local.messages {
            findings.push(compare::with_registry(message, &registry.versions(message).await?));
        }
        compared.push(format!("the registry at {}", registry.url()));
    } else if let Some(folder) = &options.schemas {
        let head = ["HEAD".to_owned()];
        let commits = if options.against.is_empty() { &head[..] } else { &options.against };
        for commit in commits {
            findings.extend(history::compare(folder, commit, &local)?);
            compared.push(format!("commit {commit}"));
        }
    }
    let report = Report::new(&local, findings, compared);
    output::result(&if options.form.json { serde_json::to_string(&report)? } else { report.text() })?;
    Ok(if report.as_released { Exit::Done } else { Exit::Differs })
}

fn load(folder: Option<&Path>) -> anyhow::Result<Local> {
    match folder {
        Some(folder) => Local::folder(folder),
        None => Ok(Local::built_in()),
    }
}

fn connect(options: &RegistryOption) -> anyhow::Result<Option<Registry>> {
    options.registry.as_deref().map(|url| Registry::new(url, options.subjects)).transpose()
}

/// `--json`, as a contract: fields are added, never changed.
#[derive(Serialize)]
struct Report {
    /// Whether nothing is wrong.
    as_released: bool,
    /// How many messages the local contract has.
    messages: usize,
    /// What it was compared with, besides its own ids and golden bytes.
    compared_with: Vec<String>,
    /// What is wrong or new.
    findings: Vec<Finding>,
}

impl Report {
    fn new(local: &Local, findings: Vec<Finding>, compared_with: Vec<String>) -> Self {
        let findings: Vec<Finding> =
            findings.into_iter().filter(|finding| !finding.is_as_released()).collect();
        Self {
            as_released: findings.iter().all(|finding| !finding.is_problem()),
            messages: local.messages.len(),
            compared_with,
            findings,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{finding}");
        }
        let wrong = self.findings.iter().filter(|finding| finding.is_problem()).count();
        let with = match self.compared_with.as_slice() {
            [] => "nothing released (see --registry and --against)".to_owned(),
            all => all.join(", "),
        };
        let _ = write!(text, "{} messages, {wrong} wrong; compared with {with}", self.messages);
        text
    }
}
