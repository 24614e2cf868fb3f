//! `/api/v1/stock`: where the pieces are, and receipts of new ones.

use axum::extract::State;
use axum::http::StatusCode;
use waybill_http::auth::Caller;
use waybill_http::detached::run_to_end;
use waybill_http::error::ApiError;
use waybill_http::idempotency::{IdempotencyKey, IdempotencyKeyParam, StoredResponse, request_hash_of};
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};

use super::AppState;
use super::access::{Admin, RequestCause};
use super::bodies::{NewReceipt, ReceiptBody, StockBody};
use super::parse::{self, SkuPath};
use super::refusals::unknown_sku;
use crate::commands::once::{Claim, once};
use crate::commands::receive_stock::{Receipt, ReceiveStock};
use crate::store::stock::stock_find;

/// Reads where the pieces of one SKU are.
#[utoipa::path(
    get, path = "/api/v1/stock/{sku}", tag = "stock", operation_id = "stock_read",
    params(("sku" = String, Path, description = "Stock keeping unit.")),
    responses((status = 200, description = "Its levels.", body = StockBody), ReadRefusals)
)]
pub(super) async fn read(
    State(state): State<AppState>,
    _caller: Caller,
    SkuPath(sku): SkuPath,
) -> Result<Json<StockBody>, ApiError> {
    let levels = stock_find(&state.reads, &sku).await?;
    let levels = levels.ok_or_else(|| unknown_sku(sku.as_str()))?;
    Ok(Json(StockBody::new(&sku, levels)))
}

/// Records pieces that came in; they are available at once. Role `admin`.
#[utoipa::path(
    post, path = "/api/v1/stock/{sku}/receipts", tag = "stock", operation_id = "stock_receive",
    params(("sku" = String, Path, description = "Stock keeping unit."), IdempotencyKeyParam),
    request_body = NewReceipt,
    responses((status = 201, description = "Recorded.", body = ReceiptBody), WriteRefusals)
)]
pub(super) async fn receive(
    State(state): State<AppState>,
    Admin(caller): Admin,
    RequestCause(cause): RequestCause,
    SkuPath(sku): SkuPath,
    key: IdempotencyKey,
    Json(body): Json<NewReceipt>,
) -> Result<StoredResponse, ApiError> {
    let pieces = parse::new_receipt(&body)?;
    let claim = Claim {
        scope: caller.subject,
        endpoint: "POST /api/v1/stock/{sku}/receipts",
        key,
        hash: request_hash_of(&(sku.as_str(), &body))?,
    };
    let work = ReceiveStock { sku, pieces, cause, answer: recorded };
    run_to_end(async move { Ok(once(&state.context, &claim, &work).await?) }).await
}

fn recorded(receipt: &Receipt) -> Result<StoredResponse, ApiError> {
    let location = Some(format!("/api/v1/stock/{}", receipt.sku));
    StoredResponse::json(StatusCode::CREATED, location, &ReceiptBody::from(receipt))
}
