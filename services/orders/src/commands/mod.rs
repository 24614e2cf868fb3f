//! What this service does, one use case per file, each one transaction. HTTP and the consumer both end here.
//!
//! A command loads, lets the domain decide, saves, appends what it says to the outbox, and commits. It does no other
//! I/O while its transaction is open.

mod announce;
pub mod cancel_order;
pub mod known_prices;
mod locked_orders;
pub mod operate_sagas;
pub mod place_order;
pub mod placements;
pub mod record_prices;
pub mod saga_progress;

use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, Utc};
use sqlx::PgPool;
use waybill_messaging::codec::CodecError;
use waybill_runtime::clock::Clock;
use waybill_runtime::pool::Statements;
use waybill_saga::SagaError;

use self::known_prices::KnownPrices;
use self::placements::Placements;
use crate::domain::order::Refused;
use crate::sagas::Sagas;

/// What every command needs.
#[derive(Clone)]
pub struct Context {
    /// The service's database, for transactions.
    pub pool: PgPool,
    /// The same, for commands that are one statement.
    pub statements: Statements,
    /// Where new orders that come together become one statement.
    pub placements: Placements,
    /// Both sagas' runners.
    pub sagas: Sagas,
    /// Tells the time, for people: nothing is decided by it.
    pub clock: Arc<dyn Clock>,
    /// Put before topic names in the outbox.
    pub topic_prefix: Arc<str>,
    /// Prices as this process last read them.
    pub prices: Arc<KnownPrices>,
}

impl Context {
    /// Now, to the microsecond: what the database keeps, so that an answer and a later read agree.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }
}

/// Why a command wrote nothing. Refusals that a caller can cause have types of their own.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The database failed, or the transaction lost a conflict.
    #[error("the database did not do it")]
    Store(#[from] sqlx::Error),
    /// A saga could not be moved on.
    #[error("a saga could not be moved on")]
    Saga(#[from] SagaError),
    /// A message could not be encoded: a fault of this program.
    #[error("a message could not be encoded")]
    Codec(#[from] CodecError),
    /// An order and its saga disagree: the row was changed by hand, or this program is at fault.
    #[error("order {order} does not follow its saga")]
    OutOfStep {
        /// Which order.
        order: uuid::Uuid,
        /// What the order refused.
        #[source]
        source: Refused,
    },
    /// A saga of an order that is not there.
    #[error("there is a saga, but no order {order}")]
    OrderMissing {
        /// Which order.
        order: uuid::Uuid,
    },
}
