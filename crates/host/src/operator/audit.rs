//! `/audit`: who changed what, why, and what came of it.

use axum::extract::State;
use waybill_http::ApiError;
use waybill_http::json::Json;
use waybill_http::openapi::ReadRefusals;
use waybill_outbox::operate::Page;
use waybill_outbox::operate::audit::{self, Entry};

use super::listed::{Everything, Listed};
use super::{Operated, openapi, refused};

/// Lists the changes operators made here, newest first.
#[utoipa::path(get, path = "/operator/v1/audit", tag = "audit", operation_id = "audit_list",
    params(openapi::PageQuery),
    responses((status = 200, description = "A page.", body = Page<Entry>), ReadRefusals))]
pub(super) async fn list(
    State(operated): State<Operated>,
    Listed { page, .. }: Listed<Everything>,
) -> Result<Json<Page<Entry>>, ApiError> {
    audit::list(&operated.pool, &page).await.map(Json).map_err(refused)
}
