//! The contract as a git commit has it: what was released before.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::compare::{Finding, with_released};
use super::local::{Local, service_and_kind};

/// Every message of the commit against the one at hand, and what became of those that are not at hand.
pub(super) fn compare(folder: &Path, commit: &str, local: &Local) -> anyhow::Result<Vec<Finding>> {
    let ids = show(folder, commit, "ids.json")?;
    let ids: BTreeMap<String, u32> =
        serde_json::from_str(&ids).with_context(|| format!("ids.json of commit {commit}"))?;
    let mut findings = Vec::new();
    for (name, id) in &ids {
        let Some(message) = local.messages.iter().find(|message| message.name == *name) else {
            let what = format!("commit {commit} has it, and here it is gone: a released message stays");
            findings.push(Finding::wrong(name, what));
            continue;
        };
        let (service, kind) = service_and_kind(name).context("a name is waybill.<service>.<Message>")?;
        let schema = show(folder, commit, &format!("{service}/{kind}.avsc"))?;
        findings.push(with_released(message, [(*id, schema.as_str())]));
    }
    for message in &local.messages {
        if let Some((name, _)) = ids.iter().find(|(name, id)| **id == message.id && **name != message.name) {
            let what = format!("id {} is {name}'s since commit {commit}", message.id);
            findings.push(Finding::wrong(&message.name, what));
        } else if !ids.contains_key(&message.name) {
            findings.push(Finding::new(&message.name, "not released yet"));
        }
    }
    Ok(findings)
}

fn show(folder: &Path, commit: &str, file: &str) -> anyhow::Result<String> {
    if commit.starts_with('-') {
        bail!("{commit} is no commit");
    }
    let run = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["show", &format!("{commit}:./{file}")])
        .output()
        .context("git can not be run; compare with a registry instead (--registry)")?;
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        bail!(
            "git does not show {file} of commit {commit} in {}: {}; compare with a registry instead (--registry)",
            folder.display(),
            said.trim()
        );
    }
    String::from_utf8(run.stdout).with_context(|| format!("{file} of commit {commit} is no text"))
}
