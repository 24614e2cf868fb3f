//! What changes a value: a JSON Patch (RFC 6902) or a jq program.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use jaq_core::data::JustLut;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, unwrap_valr};
use jaq_json::Val;
use serde_json::Value;

use crate::exit::Usage;

/// Definitions of jq's library that need what is left out here: regular expressions, dates, mathematics, encodings.
const LEFT_OUT: &[&str] = &[
    "stderr",
    "debug",
    "halt_error",
    "logb",
    "significand",
    "pow10",
    "drem",
    "nexttoward",
    "scalb",
    "gamma",
    "test",
    "scan_",
    "match",
    "capture",
    "split",
    "sub",
    "todate",
    "fromdate",
    "@html",
    "@htmld",
    "@uri",
    "@urid",
    "@base64",
    "@base64d",
    "splits",
    "gsub",
    "scan",
];

/// A program that was read and is in order.
pub(super) enum Program {
    Patch(json_patch::Patch),
    Jq(Box<Filter<JustLut<Val>>>),
}

impl Program {
    /// By the file's ending: `.json` is a JSON Patch, `.jq` a jq program.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} can not be read", path.display()))?;
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => Self::patch(&text).with_context(|| path.display().to_string()),
            Some("jq") => Self::jq(&text).with_context(|| path.display().to_string()),
            _ => {
                let path = path.display();
                bail!(Usage(format!("{path} is neither *.json (a JSON Patch) nor *.jq (a jq program)")))
            }
        }
    }

    fn patch(text: &str) -> anyhow::Result<Self> {
        let patch = serde_json::from_str(text);
        patch.map(Self::Patch).context("no JSON Patch: an array of {\"op\", \"path\", ...} (RFC 6902)")
    }

    fn jq(text: &str) -> anyhow::Result<Self> {
        // Those crates would be most of this program.
        let library = jaq_std::defs().filter(|definition| !LEFT_OUT.contains(&definition.name));
        let definitions = jaq_core::defs().chain(library).chain(jaq_json::defs());
        let functions = jaq_core::funs().chain(jaq_std::base_funs()).chain(jaq_json::funs());
        let arena = Arena::default();
        let modules = Loader::new(definitions).load(&arena, File { code: text, path: () });
        let modules = modules.map_err(|errors| anyhow!("no jq program: {errors:?}"))?;
        let filter = Compiler::default().with_funs(functions).compile(modules);
        let filter =
            filter.map_err(|errors| anyhow!("a jq program with names that are not known: {errors:?}"))?;
        Ok(Self::Jq(Box::new(filter)))
    }

    /// The value it makes of this one: exactly one.
    pub(super) fn run(&self, value: &Value) -> anyhow::Result<Value> {
        match self {
            Self::Patch(patch) => {
                let mut value = value.clone();
                json_patch::patch(&mut value, patch).context("the JSON Patch does not fit the value")?;
                Ok(value)
            }
            Self::Jq(filter) => {
                let input = jaq_json::read::parse_single(value.to_string().as_bytes());
                let input = input.map_err(|error| anyhow!("the value is no input for jq: {error}"))?;
                let context = Ctx::<JustLut<Val>>::new(&filter.lut, Vars::new([]));
                let mut made = filter.id.run((context, input)).map(unwrap_valr);
                let value = made.next().context("the jq program makes no value: keep one with `.`")?;
                let value = value.map_err(|error| anyhow!("the jq program fails: {error}"))?;
                ensure!(made.next().is_none(), "the jq program makes several values, and should make one");
                serde_json::from_str(&value.to_string()).context("the jq program makes no JSON")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_changes_what_it_names() {
        let patch = r#"[{"op": "test", "path": "/currency", "value": "eur"},
                        {"op": "replace", "path": "/currency", "value": "EUR"}]"#;
        let program = Program::patch(patch).unwrap();
        assert_eq!(program.run(&json!({"currency": "eur"})).unwrap(), json!({"currency": "EUR"}));
        let wrong = program.run(&json!({"currency": "usd"})).unwrap_err();
        assert!(wrong.to_string().contains("does not fit"), "{wrong:#}");
        assert!(Program::patch("{}").is_err());
    }

    #[test]
    fn a_jq_program_changes_what_it_likes() {
        let program =
            Program::jq("if .currency == \"eur\" then .currency |= ascii_upcase else . end").unwrap();
        let large = i64::MAX;
        assert_eq!(
            program.run(&json!({"currency": "eur", "minor": large})).unwrap(),
            json!({"currency": "EUR", "minor": large}),
            "whole numbers stay whole"
        );
        assert_eq!(program.run(&json!({"currency": "USD"})).unwrap(), json!({"currency": "USD"}));
        for (text, what) in [("empty", "no value"), (".,.", "several"), ("error(\"no\")", "fails")] {
            let said = format!("{:#}", Program::jq(text).unwrap().run(&json!({})).unwrap_err());
            assert!(said.contains(what), "{text}: {said}");
        }
        for wrong in ["if", "no_such_function"] {
            assert!(Program::jq(wrong).is_err(), "{wrong}");
        }
    }
}
