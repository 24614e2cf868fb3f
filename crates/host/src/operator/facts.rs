//! `/facts/{correlation_id}`: this service's part of one story.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_http::ApiError;
use waybill_http::idempotency::{self, KeyUsed};
use waybill_http::json::Json;
use waybill_http::openapi::ReadRefusals;
use waybill_http::params::{Path, Query};
use waybill_outbox::operate::Reason;
use waybill_outbox::operate::facts::{self, Facts};
use waybill_saga::operate::{self, LogLine, SagaView};

use super::{Operated, refused, saga_refused};

/// What this service's database knows of one story.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FactsBody {
    /// Which service.
    service: &'static str,
    /// Messages said and heard, parked keys, dead letters.
    #[serde(flatten)]
    facts: Facts,
    /// The requests it began with, for as long as their keys are kept.
    idempotency: Vec<KeyUsed>,
    /// Its sagas.
    sagas: Vec<SagaView>,
    /// Their logs, saga by saga.
    saga_log: Vec<SagaLogLine>,
}

/// One entry of a saga's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SagaLogLine {
    /// Which saga.
    saga: String,
    /// The entry.
    #[serde(flatten)]
    line: LogLine,
}

/// Which other services' messages to look for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FactsQuery {
    message_ids: Option<String>,
}

/// What this service knows of one story: for an order, its order id is the correlation id.
#[utoipa::path(get, path = "/operator/v1/facts/{correlation_id}", tag = "facts", operation_id = "facts",
    params(("correlation_id" = Uuid, Path, description = "The story."),
           ("message_ids" = Option<String>, Query, description = "Other services' messages to look for in the inbox: at \
            most 200 ids, separated by commas.")),
    responses((status = 200, description = "What is known; empty lists when nothing is.", body = FactsBody), ReadRefusals))]
pub(super) async fn facts(
    State(operated): State<Operated>,
    Path(correlation_id): Path<Uuid>,
    Query(query): Query<FactsQuery>,
) -> Result<Json<FactsBody>, ApiError> {
    body(&operated, correlation_id, query.message_ids.as_deref().unwrap_or_default()).await.map(Json)
}

/// The same for `/explain`.
pub(super) async fn body(
    operated: &Operated,
    correlation_id: Uuid,
    ids: &str,
) -> Result<FactsBody, ApiError> {
    let ids = message_ids(ids)?;
    let facts = facts::facts(&operated.pool, correlation_id, &ids).await.map_err(refused)?;
    let idempotency = idempotency::keys_of(&operated.pool, correlation_id).await?;
    let (sagas, saga_log) = sagas(operated, correlation_id).await?;
    Ok(FactsBody { service: operated.service, facts, idempotency, sagas, saga_log })
}

fn message_ids(text: &str) -> Result<Vec<Uuid>, ApiError> {
    let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::parse);
    let ids = ids.collect::<Result<Vec<Uuid>, _>>();
    ids.map_err(|error| ApiError::field("message_ids", "invalid", format!("write UUIDs and commas: {error}")))
}

async fn sagas(operated: &Operated, key: Uuid) -> Result<(Vec<SagaView>, Vec<SagaLogLine>), ApiError> {
    let (mut views, mut log) = (Vec::new(), Vec::new());
    for name in operated.sagas.as_ref().map(|desk| desk.names()).unwrap_or_default() {
        match operate::show(&operated.pool, name, key).await {
            Ok(detail) => {
                log.extend(detail.log.into_iter().map(|line| SagaLogLine { saga: (*name).to_owned(), line }));
                views.push(detail.saga);
            }
            Err(error) if error.reason() == Reason::NotFound => {}
            Err(error) => return Err(saga_refused(error)),
        }
    }
    Ok((views, log))
}
