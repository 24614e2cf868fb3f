//! `GET /api/v1/orders/{id}/timeline`: what orders' own database knows of one order, in the order of time.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_events::OrderId;
use waybill_host::operator::{refused, saga_refused};
use waybill_http::ApiError;
use waybill_http::auth::Caller;
use waybill_http::idempotency::{KeyUsed, key_of_location};
use waybill_http::json::Json;
use waybill_http::openapi::ReadRefusals;
use waybill_http::params::Path;
use waybill_outbox::operate::Reason;
use waybill_outbox::operate::dead_letters::DeadLetter;
use waybill_outbox::operate::facts::{self, Facts, Heard, MESSAGE_IDS_MAX, Said};
use waybill_outbox::operate::parked::ParkedDetail;
use waybill_saga::operate::{self, LogLine};

use super::orders::{PLACE_ENDPOINT, order_id, viewer};
use super::{AppState, errors};
use crate::commands::operate_sagas::SAGAS;
use crate::domain::viewer::Viewer;
use crate::store;

/// What happened to an order, as far as the orders service knows.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timeline {
    /// The order; also the correlation id of its messages.
    pub order_id: Uuid,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct Entry {
    /// When, by the database's clock: for messages, when their transaction began.
    pub at: DateTime<Utc>,
    /// What sort of thing.
    pub what: What,
    /// In words.
    #[schema(example = "OrderPlaced")]
    pub title: String,
    /// What is known of it; the members depend on `what`, and more may be added.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// The sort of an [`Entry`]; entries of one instant come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A request was accepted.
    Command,
    /// A message was taken from Kafka.
    MessageIn,
    /// A saga was moved, or an input changed nothing.
    SagaStep,
    /// A message was appended to the outbox.
    MessageOut,
    /// The order's later messages wait while one is retried.
    Retry,
    /// A message could not be handled.
    DeadLetter,
}

/// What happened to an order, as far as this service knows.
///
/// Customers find their own orders, the roles admin and operator every order, with the errors' texts. Outbox and inbox
/// are kept for some days: of older orders only the saga's steps are left. All services together: `waybillctl order
/// explain`.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}/timeline", tag = "orders",
    params(("id" = Uuid, Path, description = "The order.")),
    responses((status = 200, description = "The timeline.", body = Timeline), ReadRefusals)
)]
pub(super) async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Timeline>, ApiError> {
    let (id, viewer) = (order_id(&id)?, viewer(&caller)?);
    // Looks of crates that take pools: not from the reads' share, but not from those who place orders either.
    let pool = &state.context.pool;
    let placed =
        store::orders::order_find(&state.reads, id, viewer).await?.ok_or_else(errors::order_not_found)?;
    let location = format!("/api/v1/orders/{id}");
    let scope = placed.order.customer_id.to_string();
    let key = key_of_location(&state.reads, &scope, PLACE_ENDPOINT, &location).await?;
    let steps = steps(pool, id).await?;
    let causes: Vec<Uuid> = steps.iter().filter_map(Step::cause).take(MESSAGE_IDS_MAX).collect();
    let known = facts::facts(pool, id.as_uuid(), &causes).await.map_err(refused)?;

    let mut entries = vec![Entry {
        at: placed.order.created_at,
        what: What::Command,
        title: "the order was placed".to_owned(),
        detail: key.as_ref().map_or_else(|| json!({}), asked),
    }];
    entries.extend(steps.iter().map(Step::entry));
    entries.extend(from_facts(known, &steps, viewer == Viewer::Staff));
    entries.sort_by_key(|entry| (entry.at, entry.what));
    Ok(Json(Timeline { order_id: id.as_uuid(), entries }))
}

/// An entry of one saga's log.
struct Step {
    saga: &'static str,
    line: LogLine,
}

async fn steps(pool: &PgPool, id: OrderId) -> Result<Vec<Step>, ApiError> {
    let mut steps = Vec::new();
    for saga in SAGAS {
        match operate::show(pool, saga, id.as_uuid()).await {
            Ok(detail) => steps.extend(detail.log.into_iter().map(|line| Step { saga, line })),
            Err(error) if error.reason() == Reason::NotFound => {}
            Err(error) => return Err(saga_refused(error)),
        }
    }
    Ok(steps)
}

impl Step {
    /// The message that brought the input.
    fn cause(&self) -> Option<Uuid> {
        self.line.entry["cause"].as_str()?.parse().ok()
    }

    /// The input in words: `reply to reserve-stock`, `cancel`, `started`.
    fn input(&self) -> String {
        let input = &self.line.entry["input"];
        let (name, inner) = match input {
            Value::String(name) => (name.as_str(), &Value::Null),
            Value::Object(object) => {
                object.iter().next().map_or(("", &Value::Null), |(name, inner)| (name.as_str(), inner))
            }
            _ => ("", &Value::Null),
        };
        match inner["step"].as_str() {
            Some(step) => format!("{name} to {step}"),
            None => name.to_owned(),
        }
    }

    fn entry(&self) -> Entry {
        let passed_over = if self.line.entry["ignored"].is_null() { "" } else { " (changed nothing)" };
        Entry {
            at: self.line.at,
            what: What::SagaStep,
            title: format!("{}: {}{passed_over}", self.saga, self.input()),
            detail: json!({"saga": self.saga, "number": self.line.number, "entry": self.line.entry}),
        }
    }
}

fn asked(key: &KeyUsed) -> Value {
    json!({"endpoint": key.endpoint, "idempotency_key": key.key, "status": key.status})
}

fn from_facts(facts: Facts, steps: &[Step], texts: bool) -> Vec<Entry> {
    let Facts { outbox, inbox, parked, dead_letters, .. } = facts;
    let mut entries: Vec<Entry> = outbox.into_iter().map(said).collect();
    entries.extend(inbox.into_iter().map(|heard| self::heard(heard, steps)));
    entries.extend(parked.into_iter().map(|key| retried(&key, texts)));
    entries.extend(dead_letters.into_iter().map(|letter| dead(&letter, texts)));
    entries
}

fn said(row: Said) -> Entry {
    let kind = row.kind.unwrap_or_default();
    let (what, title) = match row.retry_hop {
        Some(hop) => (What::Retry, format!("{kind} goes to be retried (appearance {hop})")),
        None => (What::MessageOut, kind),
    };
    let detail = json!({
        "message_id": row.message_id, "topic": row.topic, "sequence": row.sequence, "published": row.published,
        "causation_id": row.causation_id, "trace_id": row.trace_id,
    });
    Entry { at: row.created_at, what, title, detail }
}

fn heard(row: Heard, steps: &[Step]) -> Entry {
    let step = steps.iter().find(|step| step.cause() == Some(row.message_id));
    Entry {
        at: row.received_at,
        what: What::MessageIn,
        title: step.map_or_else(|| "a message".to_owned(), Step::input),
        detail: json!({"message_id": row.message_id, "group": row.group, "hop": row.hop}),
    }
}

fn retried(key: &ParkedDetail, texts: bool) -> Entry {
    let parked = &key.parked;
    let mut detail = json!({
        "group": parked.group, "state": parked.state, "tier": parked.tier, "due_at": parked.due_at,
        "attempts": parked.attempts, "error_class": parked.error_class, "held": parked.held_count,
        "dead_letter_id": parked.dead_letter_id,
    });
    if texts {
        detail["error_message"] = json!(parked.error_message);
    }
    let title = format!("later messages wait: {}", parked.state);
    Entry { at: parked.parked_at, what: What::Retry, title, detail }
}

fn dead(letter: &DeadLetter, texts: bool) -> Entry {
    let mut detail = json!({
        "id": letter.id, "group": letter.group, "state": letter.state, "message_id": letter.message_id,
        "topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "attempts": letter.attempts,
        "error_class": letter.error_class, "failure_group": letter.failure_group,
    });
    if texts {
        detail["error_message"] = json!(letter.error_message);
    }
    let kind = letter.kind.as_deref().unwrap_or("a message");
    let title = format!("{kind} became a dead letter ({})", letter.state);
    Entry { at: letter.last_failed_at, what: What::DeadLetter, title, detail }
}
