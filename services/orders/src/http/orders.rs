//! `/api/v1/orders`: place, read, list, cancel.

use axum::extract::State;
use axum::http::StatusCode;
use waybill_events::{CustomerId, OrderId};
use waybill_http::ApiError;
use waybill_http::auth::{Caller, Role};
use waybill_http::detached::run_to_end;
use waybill_http::idempotency::{IdempotencyKey, IdempotencyKeyParam, StoredResponse, request_hash_of};
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};
use waybill_http::paging::{Cursor, Page, PageParams, Paged};
use waybill_http::params::Path;
use waybill_http::request_log::{Trace, record_correlation_id};
use waybill_messaging::envelope::Cause;
use waybill_runtime::pool::round;

use super::bodies::{OrderBody, PlaceOrderBody};
use super::{AppState, errors, parse};
use crate::commands::cancel_order::{CancelOrder, Cancelled, cancel_order};
use crate::commands::place_order::{PlaceOrder, place_order};
use crate::domain::order::{PlacedOrder, Status};
use crate::domain::viewer::Viewer;
use crate::store;
use crate::store::placement::Claim;

/// The idempotency keys' name for [`place`].
pub(super) const PLACE_ENDPOINT: &str = "POST /api/v1/orders";

/// Places an order.
///
/// 202: the order is durable and PENDING; its saga now reserves stock and authorizes the payment. Ask `Location` for how
/// it ends. The same Idempotency-Key with the same body gets the same bytes for 24 hours, and never a second order.
#[utoipa::path(
    post, path = "/api/v1/orders", tag = "orders",
    params(IdempotencyKeyParam),
    request_body = PlaceOrderBody,
    responses(
        (status = 202, description = "Accepted.", body = OrderBody, headers(
            ("Location" = String, description = "Where the order can be read."),
            ("Idempotency-Replayed" = Option<bool>, description = "true when this is the first answer again."))),
        WriteRefusals,
    )
)]
pub(super) async fn place(
    State(state): State<AppState>,
    caller: Caller,
    key: IdempotencyKey,
    Trace(trace): Trace,
    Json(body): Json<PlaceOrderBody>,
) -> Result<StoredResponse, ApiError> {
    let customer_id = CustomerId::from(caller.customer_id()?);
    let hash = request_hash_of(&body)?;
    let parse::Parsed { lines, currency, payment_token } =
        parse::place_order(body).map_err(ApiError::fields)?;
    let claim = Claim { scope: customer_id.to_string(), endpoint: PLACE_ENDPOINT, key, hash };
    let command = PlaceOrder { customer_id, lines, currency, payment_token, claim, trace };
    run_to_end(async move { Ok(place_order(&state.context, command, accepted).await?) }).await
}

fn accepted(placed: &PlacedOrder) -> Result<StoredResponse, ApiError> {
    record_correlation_id(placed.order.id);
    let location = format!("/api/v1/orders/{}", placed.order.id);
    StoredResponse::json(StatusCode::ACCEPTED, Some(location), &OrderBody::from(placed))
}

/// Reads an order.
///
/// Customers find their own orders, the roles admin and operator every order.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}", tag = "orders",
    params(("id" = Uuid, Path, description = "The order.")),
    responses((status = 200, description = "The order as it stands.", body = OrderBody), ReadRefusals)
)]
pub(super) async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OrderBody>, ApiError> {
    let (id, viewer) = (order_id(&id)?, viewer(&caller)?);
    let found = store::orders::order_find(&state.reads, id, viewer).await?;
    found.map(|placed| Json(OrderBody::from(&placed))).ok_or_else(errors::order_not_found)
}

/// Lists the caller's own orders, newest first.
#[utoipa::path(
    get, path = "/api/v1/orders", tag = "orders",
    params(PageParams),
    responses((status = 200, description = "One page.", body = Paged<OrderBody>), ReadRefusals)
)]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    page: Page,
) -> Result<Json<Paged<OrderBody>>, ApiError> {
    let customer_id = CustomerId::from(caller.customer_id()?);
    let rows = store::orders::orders_page(&state.reads, customer_id, &page).await?;
    let cursor =
        |placed: &PlacedOrder| Cursor { created_at: placed.order.created_at, id: placed.order.id.as_uuid() };
    Ok(Json(Paged::from_rows(&page, rows, cursor, |placed| OrderBody::from(&placed))))
}

/// Cancels an order.
///
/// 202: the order is CANCELLING, and will be CANCELLED when stock and money are back; 200: it is CANCELLED already. A cancel
/// may be repeated without harm and needs no Idempotency-Key (one that is sent is passed over). 409
/// `order_not_cancellable`: the order was rejected before, or was confirmed and is past being cancelled: longer ago than
/// orders can be cancelled, or an operator has settled it by hand.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/cancel", tag = "orders",
    params(("id" = Uuid, Path, description = "The order.")),
    responses(
        (status = 202, description = "The order is being cancelled.", body = OrderBody),
        (status = 200, description = "The order is cancelled.", body = OrderBody),
        (status = 409, description = "The order was rejected: there is nothing to cancel; or it was confirmed too long ago, or settled by hand.", body = waybill_http::error::Problem),
        ReadRefusals,
    )
)]
pub(super) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Trace(trace): Trace,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<OrderBody>), ApiError> {
    let (id, viewer) = (order_id(&id)?, viewer(&caller)?);
    let cause = Cause { correlation_id: id.as_uuid(), causation_id: None, trace: Some(trace) };
    let command = CancelOrder { id, viewer, cause };
    let cancel = async move { Ok(round(cancel_order(&state.context, command)).await?) };
    let cancelled = run_to_end(cancel).await?;
    match cancelled {
        Cancelled::Accepted(placed) => {
            let ended = placed.order.state.status() == Status::Cancelled;
            let status = if ended { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok((status, Json(OrderBody::from(&placed))))
        }
        Cancelled::Refused(refused) => Err(errors::not_cancellable(&refused)),
        Cancelled::NotFound => Err(errors::order_not_found()),
    }
}

/// The order id of a path, which every later log line then carries.
pub(super) fn order_id(text: &str) -> Result<OrderId, ApiError> {
    let id: OrderId = text.parse().map_err(|error| ApiError::field("id", "invalid", format!("{error}")))?;
    record_correlation_id(id);
    Ok(id)
}

pub(super) fn viewer(caller: &Caller) -> Result<Viewer, ApiError> {
    Ok(match caller.role {
        Role::Customer => Viewer::Customer(CustomerId::from(caller.customer_id()?)),
        Role::Admin | Role::Operator => Viewer::Staff,
    })
}
