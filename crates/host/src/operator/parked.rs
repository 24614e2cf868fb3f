//! `/parked`: keys that wait, and what waits behind them.

use axum::extract::State;
use waybill_http::ApiError;
use waybill_http::json::Json;
use waybill_http::openapi::ReadRefusals;
use waybill_http::params::Path;
use waybill_outbox::operate::parked::{self, ParkedDetail, ParkedFilter, ParkedKey};
use waybill_outbox::operate::{Page, key_read};

use super::listed::Listed;
use super::{Operated, openapi, refused};

/// Lists parked keys by group and key.
#[utoipa::path(get, path = "/operator/v1/parked", tag = "parked keys", operation_id = "parked_list",
    params(openapi::PageQuery, openapi::ParkedQuery),
    responses((status = 200, description = "A page.", body = Page<ParkedKey>), ReadRefusals))]
pub(super) async fn list(
    State(operated): State<Operated>,
    Listed { page, filter }: Listed<ParkedFilter>,
) -> Result<Json<Page<ParkedKey>>, ApiError> {
    parked::list(&operated.pool, &filter, &page).await.map(Json).map_err(refused)
}

/// One parked key with the first 500 messages behind it.
#[utoipa::path(get, path = "/operator/v1/parked/{group}/{key}", tag = "parked keys", operation_id = "parked_show",
    params(("group" = String, Path, description = "The consumer group."), ("key" = String, Path, description =
        "The key's text, or `base64:` and its bytes in base64 (either alphabet). A text that begins so is written in base64.",
        example = "base64:_w")),
    responses((status = 200, description = "The key.", body = ParkedDetail), ReadRefusals))]
pub(super) async fn show(
    State(operated): State<Operated>,
    Path((group, key)): Path<(String, String)>,
) -> Result<Json<ParkedDetail>, ApiError> {
    let key = key_read(&key).map_err(refused)?;
    parked::show(&operated.pool, &group, &key).await.map(Json).map_err(refused)
}
