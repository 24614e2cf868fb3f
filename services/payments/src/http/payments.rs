//! `GET /api/v1/payments/{order_id}`: the newest payment of an order, for its customer and for the staff.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_events::{CustomerId, OrderId};
use waybill_http::ApiError;
use waybill_http::auth::{Caller, Role};
use waybill_http::json::Json;
use waybill_http::openapi::ReadRefusals;
use waybill_http::params::Path;
use waybill_http::request_log::record_correlation_id;

use super::AppState;
use crate::store::payments::{PaymentView, payment_find};

/// A payment as its readers see it. The payment token is not shown.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PaymentBody {
    /// The order it pays.
    order_id: Uuid,
    /// Which payment of the order, from 1 up.
    attempt: i32,
    /// `authorizing`, `authorized`, `declined`, `giving_up`, `failed`, `voiding`, `voided`, `capturing`, `captured`,
    /// `refunding` or `refunded`.
    #[schema(example = "captured")]
    status: String,
    /// Why it was declined or failed: a machine-readable code.
    reason: Option<String>,
    /// What is to be paid, in minor units; null when it was cancelled before it was asked for.
    amount_minor: Option<i64>,
    /// ISO 4217.
    #[schema(example = "EUR")]
    currency: Option<String>,
    /// What was taken, in minor units.
    captured_minor: i64,
    /// What was given back, in minor units.
    refunded_minor: i64,
    /// Replies given to the order so far.
    version: i64,
    /// RFC 3339.
    created_at: DateTime<Utc>,
    /// RFC 3339.
    updated_at: DateTime<Utc>,
}

impl From<PaymentView> for PaymentBody {
    fn from(view: PaymentView) -> Self {
        let PaymentView { order_id, attempt, state, reason, amount_minor, currency, .. } = view;
        Self {
            order_id,
            attempt,
            status: state,
            reason,
            amount_minor,
            currency,
            captured_minor: view.captured_minor,
            refunded_minor: view.refunded_minor,
            version: view.version,
            created_at: view.created_at,
            updated_at: view.updated_at,
        }
    }
}

/// The newest payment of an order.
#[utoipa::path(get, path = "/api/v1/payments/{order_id}",
    params(("order_id" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "The payment.", body = PaymentBody), ReadRefusals))]
pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(order_id): Path<Uuid>,
) -> Result<Json<PaymentBody>, ApiError> {
    record_correlation_id(order_id);
    // Staff sees every payment, a customer only their own: the predicate is in the statement.
    let customer = match caller.role {
        Role::Customer => Some(CustomerId::from_uuid(caller.customer_id()?)),
        Role::Admin | Role::Operator => None,
    };
    let found = payment_find(&state.reads, OrderId::from_uuid(order_id), customer).await?;
    let found = found.ok_or_else(|| {
        ApiError::not_found(
            "payment_not_found",
            "there is no payment of this order, or it is another customer's",
        )
    })?;
    Ok(Json(found.into()))
}
