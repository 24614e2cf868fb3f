//! Use case: a cancel is asked for. Before the pivot it turns `place-order` round; after it, `cancel-order` follows.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use waybill_events::OrderId;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;
use waybill_outbox::append;
use waybill_runtime::failpoints;
use waybill_saga::{self as saga, Advanced, Input};

use super::locked_orders::LockedOrders;
use super::saga_progress::{Progress, orders_follow, start_cancel};
use super::{CommandError, Context};
use crate::domain::order::{PlacedOrder, Refused, State, Status};
use crate::domain::reason::Reason;
use crate::domain::viewer::Viewer;
use crate::sagas::Sagas;
use crate::sagas::place_order::PlaceOrder;
use crate::store;

/// A cancel.
#[derive(Debug, Clone)]
pub struct CancelOrder {
    /// Which order.
    pub id: OrderId,
    /// Who asks: decides which orders are found, and the reason.
    pub viewer: Viewer,
    /// Why the messages of this cancel are sent.
    pub cause: Cause,
}

/// How a cancel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The order as it stands now: CANCELLING, or CANCELLED when an earlier cancel has come to its end.
    Accepted(PlacedOrder),
    /// The order was rejected before, and there is nothing to cancel; or it was confirmed longer ago than sagas are kept; or
    /// an operator abandoned its saga.
    Refused(Refused),
    /// The viewer has no such order.
    NotFound,
}

/// Cancels an order. Naturally idempotent: an order that is or was being cancelled is answered as it stands.
///
/// An accepted cancel is durable when this returns, with everything that will end it: the turned or started saga and
/// its first command. Locks as [`crate::sagas`] tells; run it to its end when the caller hangs up.
///
/// # Errors
/// Any [`CommandError`]: then nothing is written, or (a connection lost in the commit) all of it; asking again tells.
pub async fn cancel_order(context: &Context, command: CancelOrder) -> Result<Cancelled, CommandError> {
    let mut conn = context.pool.acquire().await?;
    let Some(found) = store::orders::order_find(&mut *conn, command.id, command.viewer).await? else {
        return Ok(Cancelled::NotFound);
    };
    // What is final, or on its way there, needs no locks.
    match found.order.clone().request_cancellation(command.who(), context.now()) {
        Err(refused) => return Ok(Cancelled::Refused(refused)),
        Ok(None) => return Ok(Cancelled::Accepted(found)),
        Ok(Some(_)) => {}
    }
    let mut transaction = conn.begin().await?;
    let cancelled = cancel_in_tx(context, &mut transaction, &command).await?;
    if matches!(cancelled, Cancelled::Accepted(_)) {
        transaction.commit().await?;
        // Not answered yet.
        failpoints::reach("cancel_committed");
    }
    Ok(cancelled)
}

impl CancelOrder {
    fn who(&self) -> Reason {
        Reason::new(match self.viewer {
            Viewer::Customer(_) => Reason::CANCELLED_BY_CUSTOMER,
            Viewer::Staff => Reason::CANCELLED_BY_OPERATOR,
        })
    }
}

/// Everything under the locks. The caller rolls back unless the cancel is accepted.
async fn cancel_in_tx(
    context: &Context,
    conn: &mut PgConnection,
    command: &CancelOrder,
) -> Result<Cancelled, CommandError> {
    let (id, cause, now) = (command.id.as_uuid(), &command.cause, context.now());
    let mut out = Vec::new();
    // First the saga: what it answers about the pivot holds until the commit. It turns round only before the pivot.
    let cancel = Input::Cancel { reason: command.who().to_string() };
    let advanced = context.sagas.place.advance(conn, vec![(id, cancel, cause.clone())], &mut out).await?;
    let mut orders = LockedOrders::lock(conn, &BTreeSet::from([id]), now).await?;
    let confirmed = orders.get(id)?.state == State::Confirmed;
    if let Some(change) = too_late(&advanced).filter(|_| confirmed) {
        return Ok(Cancelled::Refused(Refused { status: Status::Confirmed, change }));
    }
    let asked = orders
        .change(id, cause.clone(), &mut out, |order, now| order.request_cancellation(command.who(), now))?;
    if let Err(refused) = asked {
        return Ok(Cancelled::Refused(refused));
    }
    orders.save(conn).await?;
    if confirmed {
        start_if_ended(&context.sagas, conn, &advanced, cause, now, &mut out).await?;
    }
    let progress = Progress { place: &advanced, cancel: &[] };
    orders_follow(&context.sagas, conn, progress, now, &mut out).await?;
    append::append(conn, &context.topic_prefix, &out).await?;
    failpoints::reach("cancel_said");
    let placed = store::orders::order_find(conn, command.id, command.viewer).await?;
    placed.map(Cancelled::Accepted).ok_or(CommandError::OrderMissing { order: id })
}

/// Why a confirmed order can not be taken back any more, as what it can not be.
fn too_late(place: &[Advanced<PlaceOrder>]) -> Option<&'static str> {
    match place.first().map(|advanced| advanced.status) {
        // Its saga was deleted after its time, and the counters of its messages with it.
        None => Some("cancelled so late"),
        // Whether the money was taken and the stock has left is known to the operator alone: a refund on top of what was
        // settled by hand would be one too many, or one of nothing.
        Some(saga::Status::Abandoned) => Some("cancelled: an operator has settled it by hand"),
        Some(_) => None,
    }
}

/// A confirmed order whose `place-order` has ended is taken back at once; else its end starts `cancel-order`.
async fn start_if_ended(
    sagas: &Sagas,
    conn: &mut PgConnection,
    place: &[Advanced<PlaceOrder>],
    cause: &Cause,
    now: DateTime<Utc>,
    out: &mut Vec<Message>,
) -> Result<(), CommandError> {
    let ended = place.iter().filter(|advanced| advanced.status.is_ended());
    let started = ended
        .map(|advanced| start_cancel(sagas, advanced, cause, now, out))
        .collect::<Result<Vec<_>, _>>()?;
    if !started.is_empty() {
        sagas.cancel.start_in_tx(conn, &started).await?;
    }
    Ok(())
}
