//! A message against versions of it that were released: same id, same schema; other ids, readable both ways.

use std::fmt;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use serde::Serialize;
use serde_json::Value as Json;

use super::local::Message;
use super::registry::Version;

/// What is to be said of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) message: String,
    pub(super) state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It is there as it is here.
    AsReleased,
    /// It is not there yet, and can be added.
    New,
    /// It can not stay like this.
    Wrong,
}

impl Finding {
    pub(super) fn wrong(message: &str, what: String) -> Self {
        Self { message: message.to_owned(), state: State::Wrong, what }
    }

    pub(super) fn new(message: &str, what: &str) -> Self {
        Self { message: message.to_owned(), state: State::New, what: what.to_owned() }
    }

    pub(super) fn is_problem(&self) -> bool {
        self.state == State::Wrong
    }

    pub(super) fn is_as_released(&self) -> bool {
        self.state == State::AsReleased
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::AsReleased => "ok",
            State::New => "new",
            State::Wrong => "wrong",
        };
        write!(f, "{state:<5} {}: {}", self.message, self.what)
    }
}

/// A message against what a registry has of it.
pub(super) fn with_registry(message: &Message, versions: &[Version]) -> Finding {
    let released = versions.iter().map(|version| (version.id, version.schema.as_str()));
    with_released(message, released)
}

/// A message against every released version of it.
pub(super) fn with_released<'a>(
    message: &Message,
    released: impl IntoIterator<Item = (u32, &'a str)>,
) -> Finding {
    let name = &message.name;
    let mut is_there = false;
    for (id, schema) in released {
        let same = plain(schema) == plain(&message.schema);
        match (same, id == message.id) {
            (true, true) => is_there = true,
            (true, false) => {
                let what = format!(
                    "its frames carry id {}, and the same schema is released under id {id}: consumers that ask \
                     would not find it",
                    message.id
                );
                return Finding::wrong(name, what);
            }
            (false, true) => {
                let what = format!("id {id} was released with another schema: a new version takes a new id");
                return Finding::wrong(name, what);
            }
            (false, false) => {
                if let Err(what) = readable_both_ways(schema, &message.schema) {
                    return Finding::wrong(name, format!("the version released under id {id}: {what}"));
                }
            }
        }
    }
    if is_there {
        Finding { message: name.clone(), state: State::AsReleased, what: String::new() }
    } else {
        Finding::new(name, "not released yet")
    }
}

/// The schema without its documentation, which may be mended at any time.
fn plain(schema: &str) -> Option<Json> {
    fn strip(json: &mut Json) {
        match json {
            Json::Object(object) => {
                object.remove("doc");
                object.values_mut().for_each(strip);
            }
            Json::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut json = serde_json::from_str(schema).ok()?;
    strip(&mut json);
    Some(json)
}

fn readable_both_ways(released: &str, ours: &str) -> Result<(), String> {
    let parse = |text: &str| Schema::parse_str(text).map_err(|error| format!("no Avro schema: {error}"));
    let (released, ours) = (parse(released)?, parse(ours)?);
    one_way(&released, &ours).map_err(|what| format!("this schema can not read it: {what}"))?;
    one_way(&ours, &released).map_err(|what| format!("it can not read this schema: {what}"))
}

fn one_way(writer: &Schema, reader: &Schema) -> Result<(), String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => Ok(()),
        Ok(Compatibility::Partial) => Err("only some values would be read".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"A","namespace":"waybill.x","doc":"d","fields":[{fields}]}}"#)
    }

    fn message(id: u32, fields: &str) -> Message {
        Message { id, name: "waybill.x.A".to_owned(), topic: None, schema: record(fields) }
    }

    const ONE: &str = r#"{"name":"a","type":"string"}"#;
    const WITH_DEFAULT: &str = r#"{"name":"a","type":"string"},{"name":"b","type":"int","default":0}"#;
    const WITHOUT_DEFAULT: &str = r#"{"name":"a","type":"string"},{"name":"b","type":"int"}"#;

    #[test]
    fn a_new_version_must_read_and_be_read() {
        let released = record(ONE);
        let state = |message: &Message| with_released(message, [(1, released.as_str())]).state;
        assert_eq!(state(&message(1, ONE)), State::AsReleased);
        assert_eq!(state(&message(2, WITH_DEFAULT)), State::New);
        assert_eq!(state(&message(2, WITHOUT_DEFAULT)), State::Wrong, "it can not read the old");
        assert_eq!(state(&message(2, "")), State::Wrong, "the old can not read it");
        assert_eq!(state(&message(1, WITH_DEFAULT)), State::Wrong, "a released id is changed");
        assert_eq!(state(&message(2, ONE)), State::Wrong, "the same schema under two ids");
    }

    #[test]
    fn documentation_may_change() {
        let released = record(ONE).replace("\"d\"", "\"better words\"");
        assert!(with_released(&message(1, ONE), [(1, released.as_str())]).is_as_released());
    }
}
