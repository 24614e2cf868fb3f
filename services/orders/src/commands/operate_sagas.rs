//! Use case: an operator mends a saga by hand; its order follows in the same transaction, which also has the audit row.

use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::message::Message;
use waybill_outbox::append;
use waybill_outbox::operate::{Change, OperateError as Refusal, Reason};
use waybill_saga::Verb;
use waybill_saga::operate::{self, OperateError, SagaView};

use super::saga_progress::{Progress, orders_follow};
use super::{CommandError, Context};
use crate::sagas::{cancel_order, place_order};

/// The names of the sagas that an operator sees: an order has the first, and the second once it is cancelled after its pivot.
pub const SAGAS: [&str; 2] = [place_order::NAME, cancel_order::NAME];

/// Why a verb did nothing.
#[derive(Debug, thiserror::Error)]
pub enum OperateSagaError {
    /// There is no such saga, or it is not in the state for the verb.
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// The order could not follow.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl OperateSagaError {
    /// What a caller can do about it. An order that refuses to follow its saga is a conflict.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Operate(error) => error.reason(),
            Self::Command(CommandError::OutOfStep { .. } | CommandError::OrderMissing { .. }) => {
                Reason::Conflict
            }
            Self::Command(_) => Reason::Database,
        }
    }
}

impl From<sqlx::Error> for OperateSagaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Command(error.into())
    }
}

/// Sends a stuck saga's command again. Returns the saga as it stands then; durable when this returns.
///
/// # Errors
/// [`OperateSagaError`]: nothing was written.
pub async fn retry(
    context: &Context,
    saga: &str,
    key: Uuid,
    change: &Change,
) -> Result<SagaView, OperateSagaError> {
    operate(context, saga, key, Verb::Retry, change).await
}

/// Takes a stuck saga's step as done by hand. As [`retry`].
///
/// # Errors
/// [`OperateSagaError`]: nothing was written.
pub async fn skip(
    context: &Context,
    saga: &str,
    key: Uuid,
    change: &Change,
) -> Result<SagaView, OperateSagaError> {
    operate(context, saga, key, Verb::Skip, change).await
}

/// Ends a saga as it stands: a pending order becomes REJECTED, a confirmed one stays so, one that is being taken back
/// becomes CANCELLED. As [`retry`].
///
/// # Errors
/// [`OperateSagaError`]: nothing was written.
pub async fn abandon(
    context: &Context,
    saga: &str,
    key: Uuid,
    change: &Change,
) -> Result<SagaView, OperateSagaError> {
    operate(context, saga, key, Verb::Abandon, change).await
}

async fn operate(
    context: &Context,
    saga: &str,
    key: Uuid,
    verb: Verb,
    change: &Change,
) -> Result<SagaView, OperateSagaError> {
    let mut tx = context.pool.begin().await?;
    let mut out = Vec::new();
    advance(context, &mut tx, (saga, key), verb, change, &mut out).await?;
    append::append(&mut tx, &context.topic_prefix, &out).await?;
    let view = operate::view_in_tx(&mut tx, saga, key).await?;
    tx.commit().await?;
    Ok(view)
}

/// Moves the saga of this name and lets its order follow; locks as [`crate::sagas`] tells.
async fn advance(
    context: &Context,
    conn: &mut PgConnection,
    (saga, key): (&str, Uuid),
    verb: Verb,
    change: &Change,
    out: &mut Vec<Message>,
) -> Result<(), OperateSagaError> {
    let (place, cancel) = (&context.sagas.place, &context.sagas.cancel);
    let (mut placed, mut cancelled) = (Vec::new(), Vec::new());
    if saga == place.saga() {
        placed.push(operate::operate(place, conn, key, verb, change, out).await?);
    } else if saga == cancel.saga() {
        cancelled.push(operate::operate(cancel, conn, key, verb, change, out).await?);
    } else {
        let name = format!("{saga}/{key}");
        return Err(OperateError::from(Refusal::Unknown { what: "saga", name }).into());
    }
    let progress = Progress { place: &placed, cancel: &cancelled };
    Ok(orders_follow(&context.sagas, conn, progress, context.now(), out).await?)
}
