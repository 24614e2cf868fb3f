//! Which dead letters are meant.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{OperateError, base64_read};

/// Most ids one filter names: what a person or a script hands over in one request.
const IDS_MAX: usize = 10_000;

/// A state, or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateFilter {
    /// Nobody has dealt with it.
    #[default]
    Open,
    /// Sent again, without a verdict yet.
    Replaying,
    /// Sent again, and done.
    Resolved,
    /// Given up by an operator.
    Discarded,
    /// All of them.
    Any,
}

impl StateFilter {
    /// As the column has it; `None` for any.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Open => Some("open"),
            Self::Replaying => Some("replaying"),
            Self::Resolved => Some("resolved"),
            Self::Discarded => Some("discarded"),
            Self::Any => None,
        }
    }
}

/// Dead letters that fulfil all of it; nothing said means every open one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The consumer group, without prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The topic it first lay on, with prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// `ce_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The key, when it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The class it failed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// See [`super::dead_letters::FailureGroup`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_group: Option<String>,
    /// Open unless said.
    pub state: StateFilter,
    /// `ce_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Uuid>,
    /// The story it belongs to: for orders, the order's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// Failed last at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Failed last before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// Only these; at most 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<Uuid>>,
}

impl Filter {
    /// Exactly these, whatever their state.
    #[must_use]
    pub fn of_ids(ids: Vec<Uuid>) -> Self {
        Self { ids: Some(ids), state: StateFilter::Any, ..Self::default() }
    }

    /// Only open ones can be sent again or given up; a filter that says otherwise is a mistake.
    pub(crate) fn open_only(&self) -> Result<(), OperateError> {
        match self.state {
            StateFilter::Open => Ok(()),
            _ => Err(OperateError::invalid(
                "filter.state",
                "only open dead letters can be changed; leave it out",
            )),
        }
    }

    /// Adds the conditions on `dead_letters d` to a statement that has a `where` with a condition already.
    pub(crate) fn push(&self, to: &mut QueryBuilder<Postgres>) -> Result<(), OperateError> {
        let key = match (&self.key, &self.key_base64) {
            (Some(_), Some(_)) => {
                return Err(OperateError::invalid("key", "write key or key_base64, not both"));
            }
            (Some(text), None) => Some(text.clone().into_bytes()),
            (None, Some(coded)) => Some(base64_read("key_base64", coded)?),
            (None, None) => None,
        };
        if self.ids.as_ref().is_some_and(|ids| ids.len() > IDS_MAX) {
            return Err(OperateError::invalid("ids", format!("name at most {IDS_MAX}")));
        }
        if let Some(state) = self.state.name() {
            // Written out, not bound: only then the partial indexes are for it.
            to.push(" and d.state = '").push(state).push("'");
        }
        for (condition, text) in [
            (" and d.consumer_group = ", &self.group),
            (" and d.topic = ", &self.topic),
            (" and d.kind = ", &self.kind),
            (" and d.error_class = ", &self.error_class),
            (" and d.failure_group = ", &self.failure_group),
        ] {
            if let Some(text) = text {
                // Postgres refuses the zero character; nothing stored has it.
                to.push(condition).push_bind(text.replace('\0', "\u{fffd}"));
            }
        }
        if let Some(key) = key {
            to.push(" and d.key = ").push_bind(key);
        }
        if let Some(id) = self.message_id {
            to.push(" and d.message_id = ").push_bind(id);
        }
        if let Some(id) = self.correlation_id {
            to.push(" and d.correlation_id = ").push_bind(id);
        }
        if let Some(from) = self.from {
            to.push(" and d.last_failed_at >= ").push_bind(from);
        }
        if let Some(end) = self.to {
            to.push(" and d.last_failed_at < ").push_bind(end);
        }
        if let Some(ids) = &self.ids {
            to.push(" and d.id = any(").push_bind(ids.clone()).push(")");
        }
        Ok(())
    }
}
