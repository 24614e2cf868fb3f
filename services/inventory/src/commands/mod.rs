//! One use case per file, one transaction each; HTTP and Kafka meet here.

pub mod add_product;
pub mod change_price;
pub mod error;
pub mod messages;
pub mod obey_stock_commands;
pub mod once;
pub mod receive_stock;

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::{PgConnection, PgPool};
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Draft;
use waybill_runtime::clock::{self, Clock};

pub use error::CommandError;

/// What commands work with.
#[derive(Clone)]
pub struct Context {
    /// This service's database.
    pub pool: PgPool,
    /// Put before topic names.
    pub topic_prefix: Arc<str>,
    /// For times that are shown, never for order.
    pub clock: Arc<dyn Clock>,
}

impl Context {
    /// Now, to the microsecond, as Postgres keeps it: the first answer and later reads show the same time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }

    /// Appends one event to the outbox; its aggregate's row was locked or inserted in this transaction.
    async fn say(
        &self,
        conn: &mut PgConnection,
        draft: Draft,
        sequence: i64,
        cause: &Cause,
    ) -> Result<(), sqlx::Error> {
        let message = draft.finish(clock::new_id(), self.now(), messages::SOURCE, sequence, cause.clone());
        waybill_outbox::append::append(conn, &self.topic_prefix, &[message]).await
    }
}
