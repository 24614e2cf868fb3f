//! Arrows between the folders of a service, and from it to what has one home, read from its source.
use std::path::Path;

use crate::lint::rust_source::masked;

/// Each folder of a service with the folders it may use. A file beside them (main.rs, config.rs) wires all of them.
const ARROWS: [(&str, &[&str]); 6] = [
    // Store for reads only; writes go through a command.
    ("http", &["commands", "domain", "store"]),
    ("consumers", &["commands", "domain", "sagas"]),
    ("commands", &["domain", "store", "sagas"]),
    ("sagas", &["domain", "store", "commands"]),
    ("store", &["domain"]),
    ("domain", &[]),
];

/// Crates that the pure domain does not touch.
const IMPURE: [&str; 5] = ["sqlx", "axum", "rdkafka", "tokio", "reqwest"];

/// What lies or can not be tested when a service takes it by itself, with its home.
const HOMES: [(&str, &str); 8] = [
    ("Utc::now", "waybill_runtime::clock tells the time"),
    ("SystemTime::now", "waybill_runtime::clock tells the time"),
    ("Uuid::now_v7", "waybill_runtime::clock makes ids"),
    ("Uuid::new_v4", "waybill_runtime::clock makes ids"),
    ("rand::", "waybill_runtime gives ids and jitter"),
    ("env::var", "waybill_runtime::config reads the environment, once"),
    ("tokio::spawn", "waybill_host and waybill_http start tasks and wait for them"),
    ("FutureProducer", "events go through the outbox"),
];

/// The sandbox stands for a program outside, which runs on its own: no task of the service.
const OUTSIDE: &str = "services/payments/src/provider";

/// What breaks an arrow in one file, one sentence each.
pub(super) fn violations(file: &Path, text: &str) -> Vec<String> {
    let Some(module) = module(file) else { return Vec::new() };
    let code = masked(text);
    let mut found = strays(file, &code);
    found.extend(wrong_arrows(file, &code, &module));
    found
}

/// Uses of what has its home elsewhere.
fn strays(file: &Path, code: &str) -> Vec<String> {
    let lines = code.lines().enumerate();
    let of_line = |(at, line): (usize, &str)| {
        let outside = |name: &str| name == "tokio::spawn" && file.starts_with(OUTSIDE);
        let strays = HOMES.iter().filter(|(name, _)| names(line, name) && !outside(name)).collect::<Vec<_>>();
        strays
            .into_iter()
            .map(move |(name, home)| format!("{}:{}: no {name} in a service: {home}", file.display(), at + 1))
    };
    lines.flat_map(of_line).collect()
}

/// Whether a line of code names this, not merely something that ends like it.
fn names(line: &str, name: &str) -> bool {
    let whole = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    line.match_indices(name).any(|(at, _)| whole(at))
}

fn wrong_arrows(file: &Path, code: &str, module: &[String]) -> Vec<String> {
    let Some((layer, allowed)) =
        ARROWS.iter().find(|(layer, _)| Some(layer) == module.first().map(String::as_str).as_ref())
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (number, line) in statements(code) {
        for used in used_modules(&line, module) {
            let known = ARROWS.iter().any(|(layer, _)| *layer == used);
            if known && used != *layer && !allowed.contains(&used.as_str()) {
                found.push(format!(
                    "{}:{number}: {layer} -> {used}: this arrow is not in the architecture",
                    file.display()
                ));
            }
        }
        if *layer == "domain" {
            found.extend(
                IMPURE
                    .iter()
                    .filter(|name| uses_crate(&line, name))
                    .map(|name| format!("{}:{number}: the domain is pure: no {name} here", file.display())),
            );
        }
    }
    found
}

/// The module path of a service's source file: `services/orders/src/domain/order.rs` is domain, order.
fn module(file: &Path) -> Option<Vec<String>> {
    let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
    let ["services", _, "src", rest @ ..] = parts.as_slice() else { return None };
    let mut module: Vec<String> = rest.iter().map(|part| part.trim_end_matches(".rs").to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    Some(module)
}

/// The code cut at semicolons, each piece with the line it begins on, so that a `use` over several lines stays whole.
fn statements(code: &str) -> Vec<(usize, String)> {
    let mut line = 1;
    code.split(';')
        .map(|piece| {
            let blank = piece.len() - piece.trim_start().len();
            let begins = line + piece[..blank].matches('\n').count();
            line += piece.matches('\n').count();
            (begins, piece.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// The top modules of this crate that a piece of code names, by `crate::` or by enough `super::`.
fn used_modules(code: &str, module: &[String]) -> Vec<String> {
    let mut used: Vec<String> = after_path(code, "crate::").flat_map(heads).collect();
    let ups = "super::".repeat(module.len());
    if !ups.is_empty() {
        used.extend(after_path(code, &ups).flat_map(heads));
    }
    used
}

/// What follows each place where a path begins with `start`.
fn after_path<'a>(code: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    code.match_indices(start).filter(move |(at, _)| begins(*at)).map(|(at, _)| &code[at + start.len()..])
}

/// The first names of a path or of a group: `a::b` gives a; `{a::{b, c}, d}` gives a and d.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.trim_start().strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut depth = 0;
    let mut heads = vec![word(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn uses_crate(code: &str, name: &str) -> bool {
    after_path(code, name).any(|rest| rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> usize {
        violations(Path::new(file), text).len()
    }

    const DOMAIN: &str = "services/orders/src/domain/order.rs";

    #[test]
    fn the_architecture_s_arrows_pass() {
        assert_eq!(found("services/orders/src/http/place.rs", "use crate::commands::place_order;"), 0);
        assert_eq!(found("services/orders/src/http/place.rs", "use crate::store::order_by_id;"), 0);
        assert_eq!(
            found("services/orders/src/commands/place_order.rs", "use crate::{domain::Order, store};"),
            0
        );
        assert_eq!(found(DOMAIN, "use super::line::Line; use crate::domain::money;"), 0);
        assert_eq!(found("services/orders/src/main.rs", "use crate::http; use crate::store;"), 0);
        assert_eq!(found(DOMAIN, "// use crate::store;\nconst A: &str = \"crate::store::x\";"), 0);
        assert_eq!(
            found("crates/outbox/src/store/a.rs", "use crate::http;"),
            0,
            "only services have these folders"
        );
    }

    #[test]
    fn planted_arrows_are_found() {
        assert_eq!(found(DOMAIN, "use crate::store::orders;"), 1, "domain -> store");
        assert_eq!(found(DOMAIN, "use crate::{\n    domain::Line,\n    store::{a, b},\n};"), 1, "in a group");
        assert_eq!(found(DOMAIN, "fn f() { super::super::http::serve() }"), 1, "by super");
        assert_eq!(found(DOMAIN, "use sqlx::PgPool;"), 1, "domain -> sqlx");
        assert_eq!(found("services/orders/src/store/orders.rs", "use crate::commands::place_order;"), 1);
        assert_eq!(found("services/orders/src/commands/place_order.rs", "use crate::http::error;"), 1);
        assert_eq!(found("services/orders/src/consumers/inventory.rs", "use crate::store::orders;"), 1);
    }

    #[test]
    fn planted_strays_are_found() {
        let command = "services/orders/src/commands/place_order.rs";
        assert_eq!(found(command, "let now = chrono::Utc::now();"), 1);
        assert_eq!(found(command, "let dir = std::env::var(\"DIR\");"), 1);
        assert_eq!(found(command, "tokio::spawn(async {});"), 1);
        assert_eq!(found(command, "let now = clock.now(); operand::new();"), 0);
        assert_eq!(found("services/orders/tests/it/main.rs", "Uuid::now_v7()"), 0, "tests may");
    }

    #[test]
    fn the_line_of_a_finding_is_where_its_statement_begins() {
        let text = "//! A file.\nuse std::fmt;\n\nuse crate::store;\n";
        assert!(violations(Path::new(DOMAIN), text)[0].starts_with("services/orders/src/domain/order.rs:4:"));
    }
}
