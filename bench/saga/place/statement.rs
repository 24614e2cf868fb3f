//! pgbench's script: the very statement of the service, with the sample's values in place of its parameters.

use anyhow::{Context as _, Result};

/// Where the statement stands.
const SOURCE: &str = include_str!("../../../services/orders/src/store/placement.rs");
/// How it begins in there, after the quotation mark.
const BEGINNING: &str = "with claim as materialized (";
/// The id of one more order. The server makes it, and puts it where the sample's id stood: some microseconds that the
/// service spends outside.
const ID: &str = "(:head::text || lpad(:number::text, 12, '0'))";

/// What stands for each of its parameters, in their order: arrays of one order, its two lines and its two messages.
fn values() -> [String; 27] {
    let one = |value: &str| format!("array[{value}]");
    let other = |text: &str| format!("replace(:{text}::text, :sample::text, {ID})");
    [
        one(":scope::text"),
        one(":endpoint::text"),
        one(ID),
        one(":hash::bytea"),
        one("202::smallint"),
        one(":answer_headers::text"),
        one(":answer_body::bytea"),
        one(&format!("{ID}::uuid")),
        one(":customer::uuid"),
        one("'PENDING'::text"),
        one("'EUR'::text"),
        one(":total::bigint"),
        one("1::bigint"),
        one("now()"),
        one("true"),
        one(&other("saga")),
        one("1, 1"),
        one(":first_sku::text, :second_sku::text"),
        one("0, 1"),
        one("1, 1"),
        one(":first_price::bigint, :second_price::bigint"),
        one("1, 1"),
        one(&format!("{ID}::uuid, {ID}::uuid")),
        one(":first_topic::text, :second_topic::text"),
        one(&format!("convert_to({ID}, 'UTF8'), convert_to({ID}, 'UTF8')")),
        one(&format!("{}, {}", other("first_headers"), other("second_headers"))),
        one(":first_payload::bytea, :second_payload::bytea"),
    ]
}

/// The script of one transaction.
///
/// # Errors
/// When the statement is no longer where it was, or has other parameters.
pub(super) fn script() -> Result<String> {
    let from = SOURCE.find(BEGINNING).context("the statement that places an order begins differently now")?;
    let text = SOURCE[from..].split('"').next().unwrap_or_default();
    let mut statement = String::new();
    // Comments are not sent: pgbench would look for variables in them.
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("--")) {
        statement.push_str(line);
        statement.push('\n');
    }
    let values = values();
    // From the last: $2 is the beginning of $27.
    for (place, value) in values.iter().enumerate().rev() {
        let parameter = format!("${}", place + 1);
        anyhow::ensure!(statement.contains(&parameter), "the statement has no {parameter} any more");
        statement = statement.replace(&parameter, value);
    }
    anyhow::ensure!(!statement.contains('$'), "the statement has more parameters than it had");
    Ok(format!("\\set n :n + 1\n\\set number :n * 1000 + :client_id\n{statement};\n"))
}
