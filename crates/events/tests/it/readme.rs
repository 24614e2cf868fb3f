//! schemas/README.md is the table people read: it says what the manifest and the schemas say.

use waybill_events::KNOWN;
use waybill_events::topics::manifest_parsed;

use crate::schemas_text;

/// Cells of the table row that starts with `| first |`.
fn row(readme: &str, first: &str) -> Vec<String> {
    let start = format!("| {first} |");
    let line = readme.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("schemas/README.md has no row for {first}"));
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn the_topic_table_is_the_manifest() {
    let readme = schemas_text("README.md");
    for topic in manifest_parsed().unwrap().topics() {
        let consumers =
            if topic.consumers.is_empty() { "nobody yet".to_owned() } else { topic.consumers.join(", ") };
        let messages = match topic.messages.as_slice() {
            [] if topic.name.ends_with(".dlq") => "dead letters".to_owned(),
            [] => "retries".to_owned(),
            kinds => kinds.join(", "),
        };
        let name = format!("`{}`", topic.name);
        assert_eq!(
            row(&readme, &name),
            [name.clone(), topic.key.clone(), topic.producer.clone(), consumers, messages]
        );
    }
}

#[test]
fn the_message_table_has_every_message_with_its_id_and_file() {
    let readme = schemas_text("README.md");
    for known in KNOWN {
        let service = known.name.split('.').nth(1).unwrap();
        let cells = row(&readme, &known.schema_id.to_string());
        assert_eq!(cells[1], format!("[{kind}]({service}/{kind}.avsc)", kind = known.kind));
        let kind = if known.topic.ends_with(".commands") { "command" } else { "event" };
        assert!(cells[2] == kind || (kind == "event" && cells[2] == "reply"), "{}: {}", known.kind, cells[2]);
    }
    let rows = readme.lines().filter(|line| line.contains(".avsc) |")).count();
    assert_eq!(rows, KNOWN.len(), "the table has rows for messages that do not exist");
}
