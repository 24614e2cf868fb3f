//! Use case: a customer places an order.
//!
//! One round trip, which orders that come at the same time share ([`super::placements`]): a statement, which is its own
//! transaction (so its pool needs no guard), looks whether the lines' prices are the catalogue's, and writes idempotency
//! key, order, lines, saga instance, its first log entry, and the outbox rows of `OrderPlaced` and `ReserveStock`.
//!
//! The prices are those this process read last ([`super::known_prices`]). When one is not known, or has changed, or the
//! lines can not be priced by them, a statement before reads them anew, and whether the key was used; a price that
//! changes between the two comes too late. A request whose key was used needs one more, for the stored answer.

use std::sync::Arc;

use waybill_events::inventory::StockLine;
use waybill_events::{Currency, CustomerId, OrderId};
use waybill_http::ApiError;
use waybill_http::idempotency::{StoredResponse, key_replay};
use waybill_messaging::envelope::Cause;
use waybill_outbox::append::AppendArrays;
use waybill_runtime::failpoints;
use waybill_runtime::gather::GatherError;
use waybill_runtime::pool::Statements;
use waybill_saga::Sequences;
use waybill_telemetry::trace::TraceContext;

use super::{CommandError, Context, announce};
use crate::domain::order::{Order, PlacedOrder};
use crate::domain::pricing::{Priced, PricingError, RequestedLine, price_lines};
use crate::metrics;
use crate::sagas::place_order::PlaceOrder as SagaData;
use crate::store::groundwork::groundwork;
use crate::store::placement::{Claim, Placement, Placing, Prices};

/// A new order as the customer wants it: each field within its limits, no SKU twice.
#[derive(Debug, Clone)]
pub struct PlaceOrder {
    /// Who orders.
    pub customer_id: CustomerId,
    /// What; at least one line.
    pub lines: Vec<RequestedLine>,
    /// In which currency.
    pub currency: Currency,
    /// The provider's name for the means of payment.
    pub payment_token: String,
    /// By what the request is known when it comes again.
    pub claim: Claim,
    /// The request's trace.
    pub trace: TraceContext,
}

/// Why no order was placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The lines can not be priced.
    #[error("the lines can not be priced")]
    Pricing(Vec<PricingError>),
    /// The idempotency key was used for another request, or its first request still runs.
    #[error("the idempotency key can not be used")]
    Key(#[source] ApiError),
    /// The database did not do it, nor for the orders in the same statement.
    #[error("the database did not place it")]
    Shared(#[source] Arc<sqlx::Error>),
    /// The task that placed it has ended: a fault of this program.
    #[error("the order's statement was lost")]
    Lost(#[source] GatherError),
    /// The command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Places an order, or gives the answer that was given under the same key before, byte for byte.
///
/// `answer` makes the bytes that are stored and returned. When this returns an answer the order is durable, and so is
/// the first command of its saga. Run it to its end when the caller hangs up.
///
/// # Errors
/// [`PlaceError`]: nothing was written, or (a connection lost in the statement that writes) all of it; the same key tells.
pub async fn place_order(
    context: &Context,
    command: PlaceOrder,
    answer: impl Fn(&PlacedOrder) -> Result<StoredResponse, ApiError>,
) -> Result<StoredResponse, PlaceError> {
    if let Some(priced) = guess(context, &command) {
        let placement = placement(context, &command, priced, Prices::Remembered, &answer)?;
        match place(context, &placement).await? {
            Placing::Placed => return Ok(placement.answer.clone()),
            Placing::KeyTaken => return replay(&context.statements, &command.claim).await,
            Placing::PriceChanged => {}
        }
    }
    let skus: Vec<&str> = command.lines.iter().map(|line| line.sku.as_str()).collect();
    let known = groundwork(&context.statements, &command.claim, &skus).await.map_err(CommandError::from)?;
    context.prices.learn(&known.prices);
    if !known.key_used {
        let priced =
            price_lines(&command.lines, command.currency, &known.prices).map_err(PlaceError::Pricing)?;
        let placement = placement(context, &command, priced, Prices::JustRead, &answer)?;
        if place(context, &placement).await? == Placing::Placed {
            return Ok(placement.answer.clone());
        }
    }
    replay(&context.statements, &command.claim).await
}

/// The lines priced by what is remembered; `None` when that does not do, for whatever reason.
fn guess(context: &Context, command: &PlaceOrder) -> Option<Priced> {
    let prices = context.prices.of(command.lines.iter().map(|line| &line.sku))?;
    price_lines(&command.lines, command.currency, &prices).ok()
}

async fn replay(statements: &Statements, claim: &Claim) -> Result<StoredResponse, PlaceError> {
    let Claim { scope, endpoint, key, hash } = claim;
    key_replay(statements, scope, endpoint, key, hash).await.map_err(PlaceError::Key)
}

/// All that is written for a new order.
fn placement(
    context: &Context,
    command: &PlaceOrder,
    priced: Priced,
    prices: Prices,
    answer: impl Fn(&PlacedOrder) -> Result<StoredResponse, ApiError>,
) -> Result<Arc<Placement>, PlaceError> {
    let now = context.now();
    let id = OrderId::generate();
    let order = Order::placed(id, command.customer_id, command.currency, priced.total_minor, now);
    let placed = PlacedOrder { order, lines: priced.lines };
    let cause =
        Cause { correlation_id: id.as_uuid(), causation_id: None, trace: Some(command.trace.clone()) };
    let data = saga_data(&placed, &command.payment_token);
    let started = context.sagas.place.start(id.as_uuid(), &data, &cause, Sequences::default(), now);
    let started = started.map_err(CommandError::from)?;
    let saga = started.element().map_err(|error| CommandError::from(sqlx::Error::Encode(error.into())))?;
    let mut messages = vec![announce::placed(&placed, cause, now).map_err(CommandError::from)?];
    messages.extend(started.messages);
    let messages = AppendArrays::new(&context.topic_prefix, &messages);
    let (claim, answer) = (command.claim.clone(), answer(&placed).map_err(PlaceError::Key)?);
    Ok(Arc::new(Placement { claim, answer, placed, saga, messages, prices }))
}

async fn place(context: &Context, placement: &Arc<Placement>) -> Result<Placing, PlaceError> {
    let placing = context.placements.place(Arc::clone(placement)).await?;
    if placing == Placing::Placed {
        // Not answered yet.
        failpoints::reach("order_placed");
        metrics::changed_to(placement.placed.order.state.status());
    }
    Ok(placing)
}

fn saga_data(placed: &PlacedOrder, payment_token: &str) -> SagaData {
    let lines = placed.lines.iter();
    SagaData {
        order_id: placed.order.id,
        customer_id: placed.order.customer_id,
        lines: lines.map(|line| StockLine { sku: line.sku.clone(), quantity: line.quantity }).collect(),
        total_minor: placed.order.total_minor,
        currency: placed.order.currency,
        payment_token: payment_token.to_owned(),
    }
}
