//! `/replays`: dead letters sent again as an operation.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_http::ApiError;
use waybill_http::detached::run_to_end;
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};
use waybill_http::params::Path;
use waybill_outbox::operate::replays::{self, NewReplay, Replay};
use waybill_outbox::operate::{Filter, Page};

use super::access::Operator;
use super::bodies::Because;
use super::listed::{Everything, Listed};
use super::{Operated, openapi, refused};

/// A replay that is wished for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReplayBody {
    /// All of it must hold; only open ones can be sent again.
    #[schema(value_type = openapi::Filter)]
    filter: Filter,
    /// Why.
    reason: String,
    /// Letters per second at most.
    #[schema(minimum = 1, maximum = 1000, default = 50)]
    rate_per_s: Option<u32>,
    /// Whether it begins with 1, 2, 5, 10, 20, 50, ... letters, each step after the verdicts of the one before.
    #[schema(default = true)]
    ramp: Option<bool>,
    /// At how many failures it stops.
    #[schema(minimum = 1, maximum = 100_000, default = 5)]
    stop_after_failures: Option<u32>,
}

/// Sends dead letters again, to their own groups only, in the order of each key.
///
/// 202: what is to be sent is fixed and durable; the service sends it, also after a restart. 400 when no open letter
/// fits.
#[utoipa::path(post, path = "/operator/v1/replays", tag = "replays", operation_id = "replays_create",
    request_body = NewReplayBody,
    responses((status = 202, description = "The replay.", body = Replay), WriteRefusals))]
pub(super) async fn create(
    State(operated): State<Operated>,
    operator: Operator,
    Json(body): Json<NewReplayBody>,
) -> Result<(StatusCode, Json<Replay>), ApiError> {
    let change = operator.wishes(&body.reason)?;
    let default = NewReplay::of(body.filter);
    let new = NewReplay {
        rate_per_s: body.rate_per_s.unwrap_or(default.rate_per_s),
        ramp: body.ramp.unwrap_or(default.ramp),
        stop_after_failures: body.stop_after_failures.unwrap_or(default.stop_after_failures),
        ..default
    };
    run_to_end(async move {
        let replay = replays::create(&operated.pool, &new, &change).await.map_err(refused)?;
        Ok((StatusCode::ACCEPTED, Json(replay)))
    })
    .await
}

/// Lists replays, newest first.
#[utoipa::path(get, path = "/operator/v1/replays", tag = "replays", operation_id = "replays_list",
    params(openapi::PageQuery),
    responses((status = 200, description = "A page.", body = Page<Replay>), ReadRefusals))]
pub(super) async fn list(
    State(operated): State<Operated>,
    Listed { page, .. }: Listed<Everything>,
) -> Result<Json<Page<Replay>>, ApiError> {
    replays::list(&operated.pool, &page).await.map(Json).map_err(refused)
}

/// How far a replay is.
#[utoipa::path(get, path = "/operator/v1/replays/{id}", tag = "replays", operation_id = "replays_show",
    params(("id" = Uuid, Path, description = "The replay.")),
    responses((status = 200, description = "The replay.", body = Replay), ReadRefusals))]
pub(super) async fn show(
    State(operated): State<Operated>,
    Path(id): Path<Uuid>,
) -> Result<Json<Replay>, ApiError> {
    replays::show(&operated.pool, id).await.map(Json).map_err(refused)
}

/// Stops a running replay for a while; what was sent goes on.
#[utoipa::path(post, path = "/operator/v1/replays/{id}/pause", tag = "replays", operation_id = "replays_pause",
    params(("id" = Uuid, Path, description = "The replay.")), request_body = Because,
    responses((status = 200, description = "The replay.", body = Replay), WriteRefusals))]
pub(super) async fn pause(
    State(operated): State<Operated>,
    operator: Operator,
    Path(id): Path<Uuid>,
    Json(body): Json<Because>,
) -> Result<Json<Replay>, ApiError> {
    let change = operator.wishes(&body.reason)?;
    run_to_end(async move { replays::pause(&operated.pool, id, &change).await.map(Json).map_err(refused) })
        .await
}

/// Goes on with a paused or stopped replay; letters that failed and are open are sent again.
#[utoipa::path(post, path = "/operator/v1/replays/{id}/resume", tag = "replays", operation_id = "replays_resume",
    params(("id" = Uuid, Path, description = "The replay.")), request_body = Because,
    responses((status = 200, description = "The replay.", body = Replay), WriteRefusals))]
pub(super) async fn resume(
    State(operated): State<Operated>,
    operator: Operator,
    Path(id): Path<Uuid>,
    Json(body): Json<Because>,
) -> Result<Json<Replay>, ApiError> {
    let change = operator.wishes(&body.reason)?;
    run_to_end(async move { replays::resume(&operated.pool, id, &change).await.map(Json).map_err(refused) })
        .await
}

/// Ends a replay for good; what was not sent stays open.
#[utoipa::path(post, path = "/operator/v1/replays/{id}/cancel", tag = "replays", operation_id = "replays_cancel",
    params(("id" = Uuid, Path, description = "The replay.")), request_body = Because,
    responses((status = 200, description = "The replay.", body = Replay), WriteRefusals))]
pub(super) async fn cancel(
    State(operated): State<Operated>,
    operator: Operator,
    Path(id): Path<Uuid>,
    Json(body): Json<Because>,
) -> Result<Json<Replay>, ApiError> {
    let change = operator.wishes(&body.reason)?;
    run_to_end(async move { replays::cancel(&operated.pool, id, &change).await.map(Json).map_err(refused) })
        .await
}
