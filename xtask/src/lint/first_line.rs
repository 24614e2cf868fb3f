//! The first-line rule: a file says its job before anything else, so that a reader knows whether to read on.
use std::path::Path;

use anyhow::Result;

use super::{Report, tracked};
use crate::layout::Layout;

/// Fewer words than this tell no job.
const WORDS_MIN: usize = 3;

pub(super) fn check(layout: &Layout) -> Result<Report> {
    let mut report = Report::default();
    for file in tracked::files(layout)? {
        if let Some(finding) = violation(&file, &tracked::text(layout, &file)?) {
            report.findings.push(finding);
        }
    }
    Ok(report)
}

/// How a kind of file writes its first line.
enum Form {
    /// A comment that begins with one of these.
    Comment(&'static [&'static str]),
    /// A heading; its own words suffice.
    Heading,
}

fn form(file: &Path, text: &str) -> Option<Form> {
    let name = file.file_name()?.to_str()?;
    if text.starts_with("#!") {
        return Some(Form::Comment(&["# "]));
    }
    let extension = file.extension().and_then(|end| end.to_str()).unwrap_or_default();
    Some(match (name, extension) {
        // Written by tools.
        ("Cargo.lock", _) => return None,
        (_, "rs") => Form::Comment(&["//! "]),
        (_, "md") => Form::Heading,
        (_, "sql") => Form::Comment(&["-- "]),
        (_, "xml") => Form::Comment(&["<!-- "]),
        (_, "js" | "ts" | "java" | "go") => Form::Comment(&["// "]),
        (_, "toml" | "yml" | "yaml" | "sh" | "py" | "properties" | "conf" | "env" | "tf") => {
            Form::Comment(&["# "])
        }
        (".gitignore" | ".dockerignore" | ".gitattributes" | ".editorconfig" | "Makefile", _) => {
            Form::Comment(&["# "])
        }
        (name, _) if name.starts_with("Dockerfile") => Form::Comment(&["# "]),
        // JSON, Avro schemas, bytes: no comments there.
        _ => return None,
    })
}

fn violation(file: &Path, text: &str) -> Option<String> {
    let form = form(file, text)?;
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default();
    // A script's interpreter, a Dockerfile's syntax and an XML declaration have to come first.
    if ["#!", "# syntax=", "<?xml"].iter().any(|start| first.starts_with(start)) {
        first = lines.next().unwrap_or_default();
    }
    let told = match &form {
        Form::Heading => first.strip_prefix("# ").is_some_and(|heading| !heading.trim().is_empty()),
        Form::Comment(starts) => starts.iter().any(|start| {
            first.strip_prefix(start).is_some_and(|job| job.split_whitespace().count() >= WORDS_MIN)
        }),
    };
    let wanted = match form {
        Form::Heading => "# A heading".to_owned(),
        Form::Comment(starts) => format!("{}what this file is for, in {WORDS_MIN} words or more", starts[0]),
    };
    (!told).then(|| format!("{}:1: begins with `{}`; wanted: `{wanted}`", file.display(), shortened(first)))
}

fn shortened(line: &str) -> String {
    line.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(file: &str, text: &str) -> bool {
        violation(Path::new(file), text).is_none()
    }

    #[test]
    fn a_file_that_says_its_job_passes() {
        assert!(passes("src/a.rs", "//! Places one order.\nuse a;"));
        assert!(passes("up.sh", "#!/bin/sh\n# Starts the whole system.\n"));
        assert!(passes("Dockerfile", "# syntax=docker/dockerfile:1\n# One image per program.\n"));
        assert!(passes("README.md", "# Waybill\n"));
        assert!(passes("1000_orders.sql", "-- The orders and their lines.\n"));
        assert!(passes("golden.json", "{}"));
        assert!(passes(".ci/run", "#!/usr/bin/env bash\n# Everything that CI checks.\n"));
    }

    #[test]
    fn a_planted_silent_file_is_found() {
        assert!(!passes("src/a.rs", "use a;\n"));
        assert!(!passes("src/a.rs", "//! Orders.\n"), "one word is no job");
        assert!(!passes("src/a.rs", ""));
        assert!(!passes("up.sh", "#!/bin/sh\nset -e\n"));
        assert!(!passes("README.md", "Waybill\n"));
        assert!(!passes("1000_orders.sql", "create table orders ();\n"));
    }
}
