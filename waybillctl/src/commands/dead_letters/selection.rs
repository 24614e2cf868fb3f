//! A filter as the API takes it: in a query, and in a body.

use anyhow::{bail, ensure};
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use crate::cli::{Filter, Selection};
use crate::contract::base64;
use crate::exit::Usage;

impl Filter {
    /// Names and values of all that is given.
    pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
        let time = |time: &chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
        let key = self.key.as_ref().map(|key| key.bytes());
        let text = key.and_then(|key| std::str::from_utf8(key).ok());
        let no_text = key.filter(|_| text.is_none());
        let given = [
            ("group", self.group.clone()),
            ("topic", self.topic.clone()),
            ("kind", self.kind.clone()),
            ("key", text.map(str::to_owned)),
            ("key_base64", no_text.map(base64)),
            ("error_class", self.error_class.clone()),
            ("failure_group", self.failure_group.clone()),
            ("state", self.state.clone()),
            ("message_id", self.message_id.clone()),
            ("correlation_id", self.correlation_id.clone()),
            ("from", self.from.as_ref().map(time)),
            ("to", self.to.as_ref().map(time)),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The same as an object.
    pub(crate) fn body(&self) -> Value {
        Value::Object(self.given().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
    }
}

impl Selection {
    /// As an object, of open letters only: none else can be changed. Refused when it does not say which.
    pub(crate) fn body_of_open(&self) -> anyhow::Result<Value> {
        let state = self.filter.state.as_deref().filter(|state| *state != "open");
        if let Some(state) = state {
            bail!(Usage(format!("--state {state}: only open dead letters can be changed; leave it out")));
        }
        self.body()
    }

    /// As an object; refused when it does not say which.
    pub(crate) fn body(&self) -> anyhow::Result<Value> {
        let mut body = self.filter.body();
        let object: &mut Map<String, Value> = body.as_object_mut().expect("a filter is an object");
        if !self.ids.is_empty() {
            object.insert("ids".to_owned(), json!(self.ids));
        }
        ensure!(
            !object.is_empty() || self.all,
            Usage(
                "say which dead letters: a filter (--group, --type, --failure-group, ...), --id, or --all"
                    .to_owned()
            )
        );
        ensure!(
            object.is_empty() || !self.all,
            Usage("--all is every open dead letter: leave it out, or the filter".to_owned())
        );
        Ok(body)
    }
}
