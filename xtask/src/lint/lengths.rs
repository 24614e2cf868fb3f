//! Lengths of files and functions: a short thing can be read at once.
use std::path::Path;

use anyhow::Result;

use super::rust_source::masked;
use super::{Report, tracked};
use crate::layout::Layout;

/// Past this a file is questioned: a note, not a failure.
const FILE_LINES_MAX: usize = 400;
/// Past this a function is two functions, in lines of code.
const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn check(layout: &Layout) -> Result<Report> {
    let mut report = Report::default();
    let mut lengths = Vec::new();
    for (file, text) in tracked::rust_sources(layout)? {
        let lines = text.lines().count();
        lengths.push(lines);
        if lines > FILE_LINES_MAX {
            report.notes.push(format!("{} has {lines} lines: is it one thing?", file.display()));
        }
        report.findings.extend(long_functions(&file, &text));
    }
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    report.notes.push(format!("{} Rust files, median {median} lines", lengths.len()));
    Ok(report)
}

fn long_functions(file: &Path, text: &str) -> Vec<String> {
    functions(&masked(text))
        .into_iter()
        .filter(|function| function.lines > FUNCTION_LINES_MAX)
        .map(|function| {
            let Function { name, line, lines } = function;
            format!(
                "{}:{line}: `{name}` has {lines} lines of code, more than {FUNCTION_LINES_MAX}",
                file.display()
            )
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// Where it begins, from 1.
    line: usize,
    /// Lines of its body that hold code.
    lines: usize,
}

fn functions(code: &str) -> Vec<Function> {
    let words = code
        .match_indices("fn ")
        .filter(|(at, _)| !code[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_'));
    words.filter_map(|(at, word)| function(code, at, at + word.len())).collect()
}

fn function(code: &str, at: usize, name_at: usize) -> Option<Function> {
    let name: String = code[name_at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        return None;
    }
    let body = body(&code[name_at..])?;
    // The braces' own lines count for neither the body nor its length, unless code stands on them.
    let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
    Some(Function { name, line: code[..at].matches('\n').count() + 1, lines })
}

/// What stands between a function's braces; `None` for a declaration without a body.
fn body(code: &str) -> Option<&str> {
    let mut parens = 0_i32;
    let mut open = None;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => parens += 1,
            ')' | ']' => parens -= 1,
            ';' if parens == 0 => return None,
            '{' if parens == 0 => {
                open = Some(at + 1);
                break;
            }
            _ => {}
        }
    }
    let open = open?;
    let mut depth = 1_i32;
    for (at, c) in code[open..].char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return Some(&code[open..open + at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_with_their_lines_of_code() {
        let code = "struct A;\ntrait T { fn declared(&self); }\nfn short() {}\n    fn two(a: [u8; 2]) -> u8 {\n        let b = 1;\n\n        b\n    }\n";
        let found = functions(code);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], Function { name: "two".to_owned(), line: 4, lines: 2 });
    }

    #[test]
    fn a_planted_long_function_is_found() {
        let lines = "    step();\n    // not code\n\n".repeat(FUNCTION_LINES_MAX + 1);
        let text = format!("//! A file.\nfn long() {{\n{lines}}}\n");
        let found = long_functions(Path::new("a.rs"), &text);
        assert_eq!(found, ["a.rs:2: `long` has 71 lines of code, more than 70"]);
        let lines = "    step();\n".repeat(FUNCTION_LINES_MAX);
        assert!(long_functions(Path::new("a.rs"), &format!("fn fits() {{\n{lines}}}\n")).is_empty());
    }
}
