//! The contract at hand: built in, or a folder as `schemas/` is.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value as Json;
use waybill_events::KNOWN;
use waybill_messaging::codec::untyped::Schemas;
use waybill_messaging::topics::Manifest;

use super::compare::Finding;

/// A message with its pinned id.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: u32,
    /// Full name of the record.
    pub(super) name: String,
    /// Without prefix; none where a folder has no manifest that names it.
    pub(super) topic: Option<String>,
    /// The schema as it is written.
    pub(super) schema: String,
}

/// Every message, in the order of ids, and what is wrong with them among themselves.
pub(super) struct Local {
    pub(super) messages: Vec<Message>,
    pub(super) findings: Vec<Finding>,
}

impl Local {
    pub(super) fn built_in() -> Self {
        let messages = KNOWN.iter().map(|known| Message {
            id: known.schema_id,
            name: known.name.to_owned(),
            topic: Some(known.topic.to_owned()),
            schema: known.schema.to_owned(),
        });
        Self { messages: messages.collect(), findings: Vec::new() }
    }

    pub(super) fn folder(folder: &Path) -> anyhow::Result<Self> {
        let ids = read(&folder.join("ids.json"))?;
        let ids: BTreeMap<String, u32> = serde_json::from_str(&ids).with_context(|| {
            format!("{}: one JSON object of names and ids", folder.join("ids.json").display())
        })?;
        let manifest = read(&folder.join("topics.toml"))?;
        let manifest = Manifest::parse(&manifest).context("topics.toml")?;
        let mut local = Self { messages: Vec::new(), findings: Vec::new() };
        let mut seen = HashSet::new();
        for (name, id) in &ids {
            if !seen.insert(id) {
                local.wrong(
                    name,
                    format!("id {id} is another message's too: every version has an id of its own"),
                );
            }
            local.message(folder, name, *id, &manifest)?;
        }
        for path in schema_files(folder)? {
            let name = name_of(&path).unwrap_or_default();
            if !ids.contains_key(&name) {
                let file = path.display();
                local.wrong(&name, format!("{file} has no id: give it the next free one in ids.json"));
            }
        }
        local.messages.sort_by_key(|message| message.id);
        local.golden(folder)?;
        Ok(local)
    }

    /// Takes one message in, or says what is wrong with it.
    fn message(&mut self, folder: &Path, name: &str, id: u32, manifest: &Manifest) -> anyhow::Result<()> {
        let Some((service, kind)) = service_and_kind(name) else {
            self.wrong(name, "a name is waybill.<service>.<Message>".to_owned());
            return Ok(());
        };
        let path = folder.join(service).join(format!("{kind}.avsc"));
        if !path.exists() {
            self.wrong(name, format!("ids.json names it, and {} is not there", path.display()));
            return Ok(());
        }
        let schema = read(&path)?;
        if let Err(error) = Schemas::new([(id, name, schema.as_str())]) {
            self.wrong(name, format!("{:#}", anyhow::Error::new(error)));
            return Ok(());
        }
        let topic =
            manifest.topics().iter().find(|topic| topic.messages.iter().any(|message| message == kind));
        if topic.is_none() {
            self.wrong(name, "no topic of topics.toml carries it".to_owned());
        }
        let topic = topic.map(|topic| topic.name.clone());
        self.messages.push(Message { id, name: name.to_owned(), topic, schema });
        Ok(())
    }

    /// Every version's golden bytes must be read, and to the same values as ever.
    fn golden(&mut self, folder: &Path) -> anyhow::Result<()> {
        let all = self.messages.iter().map(|m| (m.id, m.name.as_str(), m.schema.as_str()));
        let schemas = Schemas::new(all)?;
        for message in self.messages.clone() {
            let Some((service, kind)) = service_and_kind(&message.name) else { continue };
            let path = folder.join("golden").join(service).join(format!("{kind}.{}.json", message.id));
            if !path.exists() {
                self.wrong(&message.name, format!("{} is not there: see schemas/README.md", path.display()));
                continue;
            }
            let golden: Json = serde_json::from_str(&read(&path)?)
                .with_context(|| format!("{} is no JSON", path.display()))?;
            if let Err(what) = golden_check(&schemas, message.id, &golden) {
                self.wrong(&message.name, format!("{}: {what}", path.display()));
            }
        }
        Ok(())
    }

    fn wrong(&mut self, name: &str, what: String) {
        self.findings.push(Finding::wrong(name, what));
    }
}

fn golden_check(schemas: &Schemas, id: u32, golden: &Json) -> Result<(), String> {
    let cases = golden["cases"].as_array().filter(|cases| !cases.is_empty()).ok_or("it has no cases")?;
    for case in cases {
        let name = &case["case"];
        let frame = case["frame"].as_str().and_then(from_hex).ok_or(format!("case {name} has no frame"))?;
        let datum = schemas
            .decode(&frame)
            .map_err(|error| format!("case {name} is not read any more: {:#}", anyhow::Error::new(error)))?;
        if datum.schema_id != id {
            return Err(format!("case {name} is of schema id {}", datum.schema_id));
        }
        if serde_json::to_value(&datum).ok().as_ref() != Some(&case["value"]) {
            return Err(format!("case {name} is read to another value"));
        }
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let even = text.is_ascii() && text.len().is_multiple_of(2);
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok());
    even.then(|| pairs.collect()).flatten()
}

/// `waybill.orders.OrderPlaced`: orders, OrderPlaced.
pub(super) fn service_and_kind(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("waybill.")?.split_once('.')
}

fn name_of(path: &Path) -> Option<String> {
    let service = path.parent()?.file_name()?.to_str()?;
    Some(format!("waybill.{service}.{}", path.file_stem()?.to_str()?))
}

fn schema_files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = |folder: &Path| -> anyhow::Result<Vec<std::path::PathBuf>> {
        let entries =
            std::fs::read_dir(folder).with_context(|| format!("{} can not be listed", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
        paths.sort();
        Ok(paths)
    };
    let mut files = Vec::new();
    for service in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        files.extend(
            entries(&service)?.into_iter().filter(|file| file.extension().is_some_and(|e| e == "avsc")),
        );
    }
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} can not be read", path.display()))
}
