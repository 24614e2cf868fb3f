//! pgbench's script: one order in one statement, with the sample's values in place of its parameters.

use anyhow::Result;

/// It writes what the service's own statement writes for each of its orders. That one takes arrays, which cost a single order
/// more: to hold the endpoint against it would flatter the endpoint.
const STATEMENT: &str = include_str!("one_order.sql");
/// The id of one more order. The server makes it, and puts it where the sample's id stood: some microseconds that the
/// service spends outside.
const ID: &str = "(:head::text || lpad(:number::text, 12, '0'))";

/// What stands for each of its parameters, in their order.
fn values() -> [String; 24] {
    let other = |text: &str| format!("replace(:{text}::text, :sample::text, {ID})");
    [
        ":scope::text".to_owned(),
        ":endpoint::text".to_owned(),
        ID.to_owned(),
        ":hash::bytea".to_owned(),
        "202::smallint".to_owned(),
        ":answer_headers::text".to_owned(),
        ":answer_body::bytea".to_owned(),
        format!("{ID}::uuid"),
        ":customer::uuid".to_owned(),
        "'PENDING'::text".to_owned(),
        "'EUR'::text".to_owned(),
        ":total::bigint".to_owned(),
        "1::bigint".to_owned(),
        "now()".to_owned(),
        "array[:first_sku::text, :second_sku::text]".to_owned(),
        "array[1, 1]".to_owned(),
        "array[:first_price::bigint, :second_price::bigint]".to_owned(),
        other("saga"),
        format!("array[{ID}::uuid, {ID}::uuid]"),
        "array[:first_topic::text, :second_topic::text]".to_owned(),
        format!("array[convert_to({ID}, 'UTF8'), convert_to({ID}, 'UTF8')]"),
        format!("array[{}, {}]", other("first_headers"), other("second_headers")),
        "array[:first_payload::bytea, :second_payload::bytea]".to_owned(),
        "true".to_owned(),
    ]
}

/// The script of one transaction.
///
/// # Errors
/// When the statement has other parameters.
pub(super) fn script() -> Result<String> {
    let mut statement = String::new();
    // Comments are not sent: pgbench would look for variables in them.
    for line in STATEMENT.lines().map(str::trim).filter(|line| !line.starts_with("--")) {
        statement.push_str(line);
        statement.push('\n');
    }
    let values = values();
    // From the last: $2 is the beginning of $24.
    for (place, value) in values.iter().enumerate().rev() {
        let parameter = format!("${}", place + 1);
        anyhow::ensure!(statement.contains(&parameter), "the statement has no {parameter} any more");
        statement = statement.replace(&parameter, value);
    }
    anyhow::ensure!(!statement.contains('$'), "the statement has more parameters than it had");
    Ok(format!("\\set n :n + 1\n\\set number :n * 1000 + :client_id\n{statement};\n"))
}
