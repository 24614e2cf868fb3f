//! `/sagas`: look, and the verbs for those that are stuck. Only where a service has sagas.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::State;
use uuid::Uuid;
use waybill_http::ApiError;
use waybill_http::detached::run_to_end;
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};
use waybill_http::params::Path;
use waybill_outbox::operate::{Change, Page};
use waybill_saga::Verb;
use waybill_saga::operate::{self, SagaDetail, SagaFilter, SagaView};

use super::access::Operator;
use super::bodies::Because;
use super::listed::Listed;
use super::{Operated, openapi, saga_refused};

/// What [`SagaDesk::operate`] answers with.
pub type SagaFuture<'a> = Pin<Box<dyn Future<Output = Result<SagaView, ApiError>> + Send + 'a>>;

/// A service's sagas as operators reach them.
pub trait SagaDesk: Send + Sync {
    /// Their names.
    fn names(&self) -> &'static [&'static str];

    /// Does a verb to one saga in one transaction, with what follows from it and its audit row, and answers with the saga
    /// as it stands then.
    ///
    /// # Errors
    /// 404 when there is no such saga, 409 when it is not in the state for the verb.
    fn operate<'a>(&'a self, saga: &'a str, key: Uuid, verb: Verb, change: &'a Change) -> SagaFuture<'a>;
}

fn desk(operated: &Operated) -> Result<&Arc<dyn SagaDesk>, ApiError> {
    let none = || ApiError::not_found("no_sagas", format!("the service {} has no sagas", operated.service));
    operated.sagas.as_ref().ok_or_else(none)
}

/// Lists sagas by name and key.
#[utoipa::path(get, path = "/operator/v1/sagas", tag = "sagas", operation_id = "sagas_list",
    params(openapi::PageQuery, openapi::SagaQuery),
    responses((status = 200, description = "A page.", body = Page<SagaView>), ReadRefusals))]
pub(super) async fn list(
    State(operated): State<Operated>,
    Listed { page, filter }: Listed<SagaFilter>,
) -> Result<Json<Page<SagaView>>, ApiError> {
    desk(&operated)?;
    operate::list(&operated.pool, &filter, &page).await.map(Json).map_err(saga_refused)
}

/// One saga with its data and its log.
#[utoipa::path(get, path = "/operator/v1/sagas/{name}/{key}", tag = "sagas", operation_id = "sagas_show",
    params(("name" = String, Path, description = "The saga's name."), ("key" = Uuid, Path, description = "Its key.")),
    responses((status = 200, description = "The saga.", body = SagaDetail), ReadRefusals))]
pub(super) async fn show(
    State(operated): State<Operated>,
    Path((name, key)): Path<(String, Uuid)>,
) -> Result<Json<SagaDetail>, ApiError> {
    desk(&operated)?;
    operate::show(&operated.pool, &name, key).await.map(Json).map_err(saga_refused)
}

/// Sends a stuck saga's command again, with a new count of attempts.
#[utoipa::path(post, path = "/operator/v1/sagas/{name}/{key}/retry", tag = "sagas", operation_id = "sagas_retry",
    params(("name" = String, Path, description = "The saga's name."), ("key" = Uuid, Path, description = "Its key.")),
    request_body = Because,
    responses((status = 200, description = "The saga.", body = SagaView), WriteRefusals))]
pub(super) async fn retry(
    State(operated): State<Operated>,
    operator: Operator,
    Path(place): Path<(String, Uuid)>,
    Json(body): Json<Because>,
) -> Result<Json<SagaView>, ApiError> {
    verb(operated, Verb::Retry, place, operator.wishes(&body.reason)?).await
}

/// Takes a stuck saga's step, or its compensation, as done by hand, and goes on.
#[utoipa::path(post, path = "/operator/v1/sagas/{name}/{key}/skip", tag = "sagas", operation_id = "sagas_skip",
    params(("name" = String, Path, description = "The saga's name."), ("key" = Uuid, Path, description = "Its key.")),
    request_body = Because,
    responses((status = 200, description = "The saga.", body = SagaView), WriteRefusals))]
pub(super) async fn skip(
    State(operated): State<Operated>,
    operator: Operator,
    Path(place): Path<(String, Uuid)>,
    Json(body): Json<Because>,
) -> Result<Json<SagaView>, ApiError> {
    verb(operated, Verb::Skip, place, operator.wishes(&body.reason)?).await
}

/// Ends a saga that has not ended, as it stands: what it has done is the operator's to settle.
#[utoipa::path(post, path = "/operator/v1/sagas/{name}/{key}/abandon", tag = "sagas", operation_id = "sagas_abandon",
    params(("name" = String, Path, description = "The saga's name."), ("key" = Uuid, Path, description = "Its key.")),
    request_body = Because,
    responses((status = 200, description = "The saga.", body = SagaView), WriteRefusals))]
pub(super) async fn abandon(
    State(operated): State<Operated>,
    operator: Operator,
    Path(place): Path<(String, Uuid)>,
    Json(body): Json<Because>,
) -> Result<Json<SagaView>, ApiError> {
    verb(operated, Verb::Abandon, place, operator.wishes(&body.reason)?).await
}

async fn verb(
    operated: Operated,
    verb: Verb,
    (name, key): (String, Uuid),
    change: Change,
) -> Result<Json<SagaView>, ApiError> {
    let desk = Arc::clone(desk(&operated)?);
    run_to_end(async move { desk.operate(&name, key, verb, &change).await.map(Json) }).await
}
