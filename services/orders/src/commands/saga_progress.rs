//! Use case: sagas have moved on; their orders follow, in the same transaction.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;
use waybill_saga::{Advanced, Effect, Ending, Input, Started};

use super::CommandError;
use super::locked_orders::LockedOrders;
use crate::domain::order::{Order, OrderEvent, Refused, State};
use crate::domain::reason::Reason;
use crate::sagas::Sagas;
use crate::sagas::cancel_order::CancelOrder;
use crate::sagas::place_order::PlaceOrder;

/// What goes into the sagas of a batch.
#[derive(Debug, Default)]
pub struct SagaInputs {
    /// For `place-order`, by order id.
    pub place: Vec<(Uuid, Input, Cause)>,
    /// For `cancel-order`, by order id.
    pub cancel: Vec<(Uuid, Input, Cause)>,
}

/// Moves sagas on by these inputs, lets their orders follow, and pushes every command and event to `out`.
///
/// Takes the locks in the order that [`crate::sagas`] tells. At most four statements per saga and two for the orders,
/// however many inputs there are.
///
/// # Errors
/// Any [`CommandError`]; the caller then rolls back.
pub async fn advance_sagas(
    sagas: &Sagas,
    conn: &mut PgConnection,
    inputs: SagaInputs,
    now: DateTime<Utc>,
    out: &mut Vec<Message>,
) -> Result<(), CommandError> {
    let SagaInputs { place, cancel } = inputs;
    let place = match place.is_empty() {
        true => Vec::new(),
        false => sagas.place.advance(conn, place, out).await?,
    };
    let cancel = match cancel.is_empty() {
        true => Vec::new(),
        false => sagas.cancel.advance(conn, cancel, out).await?,
    };
    orders_follow(sagas, conn, Progress { place: &place, cancel: &cancel }, now, out).await
}

/// How far sagas have come in this transaction.
#[derive(Default)]
pub struct Progress<'a> {
    /// Instances of `place-order`.
    pub place: &'a [Advanced<PlaceOrder>],
    /// Instances of `cancel-order`.
    pub cancel: &'a [Advanced<CancelOrder>],
}

/// Lets orders follow sagas that have already moved on in this transaction.
///
/// # Errors
/// Any [`CommandError`]; the caller then rolls back.
pub async fn orders_follow(
    sagas: &Sagas,
    conn: &mut PgConnection,
    progress: Progress<'_>,
    now: DateTime<Utc>,
    out: &mut Vec<Message>,
) -> Result<(), CommandError> {
    let concerned = progress.orders_concerned();
    if concerned.is_empty() {
        return Ok(());
    }
    let orders = LockedOrders::lock(conn, &concerned, now).await?;
    let mut follow = Follow { sagas, now, orders, started: Vec::new(), out };
    for advanced in progress.place {
        follow.place(advanced)?;
    }
    for advanced in progress.cancel {
        follow.cancel(advanced)?;
    }
    let Follow { orders, started, .. } = follow;
    if !started.is_empty() {
        sagas.cancel.start_in_tx(conn, &started).await?;
    }
    orders.save(conn).await
}

impl Progress<'_> {
    /// The orders whose sagas have something to say to them: most replies only lead to the next command.
    fn orders_concerned(&self) -> BTreeSet<Uuid> {
        let place = self.place.iter().filter(|a| concerns_order(&a.effects)).map(|a| a.key);
        let cancel = self.cancel.iter().filter(|a| concerns_order(&a.effects)).map(|a| a.key);
        place.chain(cancel).collect()
    }
}

fn concerns_order(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Local { .. } | Effect::Finished(_)))
}

/// One pass over the progress of a batch.
struct Follow<'a> {
    sagas: &'a Sagas,
    now: DateTime<Utc>,
    orders: LockedOrders,
    started: Vec<Started>,
    out: &'a mut Vec<Message>,
}

impl Follow<'_> {
    fn place(&mut self, advanced: &Advanced<PlaceOrder>) -> Result<(), CommandError> {
        for effect in &advanced.effects {
            match effect {
                // The only local step is the pivot.
                Effect::Local { .. } => self.change(advanced, Order::confirm)?,
                Effect::Finished(Ending::Compensated { reason }) => {
                    let why = Reason::new(reason);
                    self.change(advanced, |order, now| order.taken_back(why, now))?;
                }
                Effect::Finished(Ending::Completed) => self.cancel_if_wanted(advanced)?,
                Effect::Finished(Ending::Abandoned) => self.abandoned(advanced)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn cancel(&mut self, advanced: &Advanced<CancelOrder>) -> Result<(), CommandError> {
        let finished = advanced.effects.iter().any(|effect| matches!(effect, Effect::Finished(_)));
        // Also when an operator gave the saga up: what it had left was settled by hand then.
        if finished { self.change(advanced, Order::cancelled) } else { Ok(()) }
    }

    /// The customer's cancel came after the pivot and has waited for this end.
    fn cancel_if_wanted(&mut self, place: &Advanced<PlaceOrder>) -> Result<(), CommandError> {
        if matches!(self.orders.get(place.key)?.state, State::Cancelling { .. }) {
            self.started.push(start_cancel(self.sagas, place, &place.cause, self.now, self.out)?);
        }
        Ok(())
    }

    /// An operator gave the saga up and settled by hand what it had done. A confirmed order stays so.
    fn abandoned(&mut self, place: &Advanced<PlaceOrder>) -> Result<(), CommandError> {
        match self.orders.get(place.key)?.state {
            State::Confirmed => Ok(()),
            _ => {
                let why = Reason::new(Reason::ABANDONED_BY_OPERATOR);
                self.change(place, |order, now| order.taken_back(why, now))
            }
        }
    }

    fn change<D>(
        &mut self,
        advanced: &Advanced<D>,
        change: impl FnOnce(&mut Order, DateTime<Utc>) -> Result<OrderEvent, Refused>,
    ) -> Result<(), CommandError> {
        let (order, cause) = (advanced.key, advanced.cause.clone());
        self.orders
            .change(order, cause, self.out, |order, now| change(order, now).map(Some))?
            .map_err(|source| CommandError::OutOfStep { order, source })
    }
}

/// Starts `cancel-order` with the counters of the `place-order` that has ended; its commands go to `out`, the instance
/// is for the caller to insert.
pub(super) fn start_cancel(
    sagas: &Sagas,
    place: &Advanced<PlaceOrder>,
    cause: &Cause,
    now: DateTime<Utc>,
    out: &mut Vec<Message>,
) -> Result<Started, CommandError> {
    let data = CancelOrder::from(&place.data);
    let started = sagas.cancel.start(place.key, &data, cause, place.sequences.clone(), now)?;
    out.extend(started.messages.iter().cloned());
    Ok(started)
}
