//! `dead-letters edit --transform FILE`: every value that fits a filter, through a JSON Patch or a jq program.

mod program;

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use waybill_messaging::codec::untyped::Schemas;

use self::program::Program;
use super::value;
use crate::cli::Edit;
use crate::contract::{self, base64, from_base64};
use crate::difference;
use crate::exit::Exit;
use crate::operator::answers::{DeadLetter, Edited, LetterValue};
use crate::operator::{Service, Services, view};
use crate::output;

/// Most dead letters of one transformation and service: their changes are kept in memory until all are known to be good.
const LETTERS_MAX: u64 = 100_000;
/// Letters whose values are asked for in one request; the API takes no more.
const VALUES_MAX: usize = 500;
/// Edits of one request; the API takes no more.
const EDITS_MAX: usize = 500;
/// Base64 of one request, below the body that the operators' listener takes.
const EDITS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Changes and problems that are shown; the rest is counted.
const SHOWN_MAX: usize = 10;

/// What becomes of all the letters.
#[derive(Default)]
struct Outcome<'a> {
    edits: Vec<(&'a Service, Value)>,
    unchanged: usize,
    shown: Vec<String>,
    problems: Vec<String>,
}

pub(super) async fn run(options: &Edit, program: &Path) -> anyhow::Result<Exit> {
    // Refuses a selection that selects nothing in particular, or what can not be changed.
    options.selection.body_of_open()?;
    let program = Program::read(program)?;
    let services = Services::new(&options.asking.services)?;
    let schemas = contract::schemas()?;
    let mut outcome = Outcome::default();
    let chosen = letters(&services, options).await?;
    let bar = bar("reading", chosen.iter().map(|(_, ids)| ids.len()).sum());
    for (service, ids) in &chosen {
        let mut rest = &ids[..];
        while !rest.is_empty() {
            let now = &rest[..rest.len().min(VALUES_MAX)];
            let answer: Value = service.post(&["dead-letters", "values"], &json!({ "ids": now })).await?;
            let values: Vec<LetterValue> = view(&answer["items"])?;
            // As many as fit into one answer, in the order in which they were asked for.
            let given = values.len();
            let same = values.iter().zip(now).all(|(value, id)| value.id == *id);
            ensure!(
                same && (1..=now.len()).contains(&given),
                "{} gives other values than it was asked for",
                service.name()
            );
            for value in &values {
                outcome.take(&schemas, &program, service, value);
            }
            bar.inc(given as u64);
            rest = &rest[given..];
        }
    }
    bar.finish_and_clear();
    outcome.carry_out(options).await
}

/// How far one part of the work has come; drawn on standard error, and only where that is a terminal.
fn bar(doing: &'static str, letters: usize) -> ProgressBar {
    let bar = ProgressBar::new(letters as u64).with_message(doing);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Which letters: those named, else those that fit.
async fn letters<'a>(
    services: &'a Services,
    options: &Edit,
) -> anyhow::Result<Vec<(&'a Service, Vec<String>)>> {
    let ids = &options.selection.ids;
    let mut query = options.selection.filter.given();
    if !query.iter().any(|(name, _)| *name == "state") {
        query.push(("state", "open".to_owned()));
    }
    let query = &query;
    let lists = services.each(|service| service.list(&["dead-letters"], query, LETTERS_MAX)).await?;
    let mut chosen = Vec::new();
    for (service, listed) in lists {
        if !listed.complete {
            bail!("{} has more than {LETTERS_MAX} that fit: narrow the filter", service.name());
        }
        let mut of_it = Vec::new();
        for item in &listed.items {
            let letter: DeadLetter = view(item)?;
            if ids.is_empty() || ids.contains(&letter.id) {
                of_it.push(letter.id);
            }
        }
        chosen.push((service, of_it));
    }
    if let Some(missing) = ids.iter().find(|id| chosen.iter().all(|(_, chosen)| !chosen.contains(id))) {
        bail!("there is no open dead letter {missing}");
    }
    Ok(chosen)
}

impl<'a> Outcome<'a> {
    fn take(&mut self, schemas: &Schemas, program: &Program, service: &'a Service, value: &LetterValue) {
        let id = &value.id;
        match edited(schemas, program, value) {
            Ok(None) => self.unchanged += 1,
            Ok(Some((frame, changes))) => {
                self.shown.push(format!("{id} {}\n  {}", service.name(), changes.join("\n  ")));
                let seen = &value.edited_at;
                let edit = json!({ "id": id, "payload_base64": base64(&frame), "expect_edited_at": seen });
                self.edits.push((service, edit));
            }
            Err(error) => self.problems.push(format!("{id} {}: {error:#}", service.name())),
        }
    }

    async fn carry_out(self, options: &Edit) -> anyhow::Result<Exit> {
        let (changed, unchanged, failed) = (self.edits.len(), self.unchanged, self.problems.len());
        let apply = options.change.apply && failed == 0;
        let mut edited = 0;
        if apply {
            edited = save(&self.edits, options).await?;
        }
        let report = json!({
            "applied": apply, "changed": changed, "unchanged": unchanged, "failed": failed, "edited": edited,
            "problems": self.problems,
        });
        output::one(options.asking.form, &report, || {
            let mut lines: Vec<String> = self.problems.iter().take(SHOWN_MAX).cloned().collect();
            if !apply {
                lines.extend(self.shown.into_iter().take(SHOWN_MAX));
            }
            lines.push(format!(
                "{changed} changed, {unchanged} unchanged, {failed} can not be changed like this"
            ));
            lines.push(match (apply, failed) {
                (true, _) => format!("{edited} edited; their original bytes are kept"),
                (false, 0) => "save them with --apply --reason TEXT and the same options".to_owned(),
                (false, _) => {
                    "nothing is saved until all can be: mend the program, or narrow the filter".to_owned()
                }
            });
            Ok(lines.join("\n"))
        })?;
        Ok(if failed == 0 { Exit::Done } else { Exit::Differs })
    }
}

/// The new frame and what is different in it; `None` when nothing is.
fn edited(
    schemas: &Schemas,
    program: &Program,
    value: &LetterValue,
) -> anyhow::Result<Option<(Vec<u8>, Vec<String>)>> {
    let frame = value.payload_base64.as_deref().map(from_base64).transpose()?.context("it has no value")?;
    let before = serde_json::to_value(schemas.decode(&frame)?)?;
    let after = program.run(&before)?;
    if after == before {
        return Ok(None);
    }
    let schema_id = value::schema_id(&value.id, value.kind.as_deref(), Some(&frame))?;
    let frame = value::frame(schemas, schema_id, &after)?;
    Ok(Some((frame, difference::of(&before, &after))))
}

/// Saves in requests of bounded size, service by service; returns how many were saved.
async fn save(edits: &[(&Service, Value)], options: &Edit) -> anyhow::Result<u64> {
    let bar = bar("saving", edits.len());
    let mut saved = 0;
    let mut rest = edits;
    while let Some((service, _)) = rest.first() {
        let mut bytes = 0;
        let fits = |(other, edit): &&(&Service, Value)| {
            bytes += edit["payload_base64"].as_str().map_or(0, str::len);
            other.name() == service.name() && bytes <= EDITS_BYTES_MAX
        };
        let count = rest.iter().take(EDITS_MAX).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        let items: Vec<&Value> = now.iter().map(|(_, edit)| edit).collect();
        let body = json!({ "items": items, "reason": options.change.reason });
        let answer: Value = service
            .post(&["dead-letters", "edit"], &body)
            .await
            .with_context(|| format!("{saved} were saved before; the same command goes on with the rest"))?;
        saved += view::<Edited>(&answer)?.edited;
        bar.inc(count as u64);
        rest = later;
    }
    bar.finish_and_clear();
    Ok(saved)
}
