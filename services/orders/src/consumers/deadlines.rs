//! Deadlines: the saga crate's sweepers move overdue sagas on, their orders follow as they do after a reply.

use sqlx::PgConnection;
use waybill_messaging::message::Message;
use waybill_saga::Advanced;
use waybill_saga::sweeper::{Apply, SweepError};

use crate::commands::saga_progress::{Progress, orders_follow};
use crate::commands::{CommandError, Context};
use crate::sagas::cancel_order::CancelOrder;
use crate::sagas::place_order::PlaceOrder;

/// What the sweepers of both sagas do after an advance.
#[derive(Clone)]
pub struct OrdersFollow {
    context: Context,
}

impl OrdersFollow {
    /// Follows with this context; the connection is each sweep's own.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    async fn follow(
        &self,
        conn: &mut PgConnection,
        progress: Progress<'_>,
        out: &mut Vec<Message>,
    ) -> Result<(), SweepError> {
        let context = &self.context;
        orders_follow(&context.sagas, conn, progress, context.now(), out).await?;
        Ok(())
    }
}

impl Apply<PlaceOrder> for OrdersFollow {
    async fn apply(
        &self,
        conn: &mut PgConnection,
        advanced: &[Advanced<PlaceOrder>],
        out: &mut Vec<Message>,
    ) -> Result<(), SweepError> {
        self.follow(conn, Progress { place: advanced, cancel: &[] }, out).await
    }
}

impl Apply<CancelOrder> for OrdersFollow {
    async fn apply(
        &self,
        conn: &mut PgConnection,
        advanced: &[Advanced<CancelOrder>],
        out: &mut Vec<Message>,
    ) -> Result<(), SweepError> {
        self.follow(conn, Progress { place: &[], cancel: advanced }, out).await
    }
}

impl From<CommandError> for SweepError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Store(error) => error.into(),
            CommandError::Saga(error) => error.into(),
            CommandError::OutOfStep { ref source, .. } => Self::Fault(format!("{error}: {source}")),
            CommandError::Codec(_) | CommandError::OrderMissing { .. } => Self::Fault(error.to_string()),
        }
    }
}
