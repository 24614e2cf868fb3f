//! The consumer group `orders`: a wave of messages becomes prices and saga inputs, handled set-wise.

use sqlx::PgConnection;
use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Message;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, Verdict};
use waybill_saga::SagaError;

use super::incoming::{self, Incoming, Saga};
use crate::commands::record_prices::record_prices;
use crate::commands::saga_progress::{SagaInputs, advance_sagas};
use crate::commands::{CommandError, Context};
use crate::domain::pricing::PriceNotice;

/// Name of the consumer group, without prefix.
pub const GROUP: &str = "orders";

/// The group's handler.
#[derive(Clone)]
pub struct OrdersGroup {
    context: Context,
}

impl OrdersGroup {
    /// Handles messages with this context; the connection is each batch's own.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Handler for OrdersGroup {
    type Message = Incoming;

    fn group(&self) -> &str {
        GROUP
    }

    fn decode(&self, kind: &str, payload: &[u8]) -> Result<Option<Incoming>, CodecError> {
        incoming::decode(kind, payload)
    }

    /// Statements, however many messages: one for prices, at most four per saga, two for orders. Every reply is `Done`:
    /// late, repeated and crossing ones are the saga's everyday, not failures. One to a saga of a version that only a
    /// newer process knows is retried: it is a good one, and this process is the one that will go.
    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Incoming>],
        out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let (notices, inputs) = sorted_out(deliveries);
        record_prices(conn, notices).await?;
        match advance_sagas(&self.context.sagas, conn, inputs, self.context.now(), out).await {
            Ok(()) => Ok(vec![Verdict::Done; deliveries.len()]),
            Err(CommandError::Saga(error @ SagaError::UnknownVersion { .. })) => {
                Ok(not_yet(deliveries, &error))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Replies to the sagas that the error names wait for a process that knows them; nothing of the others has happened yet,
/// and they come again without these.
fn not_yet(deliveries: &[Delivery<Incoming>], error: &SagaError) -> Vec<Verdict> {
    let concerned = |incoming: &Incoming| match (incoming, error) {
        (Incoming::Reply { order, saga, .. }, SagaError::UnknownVersion { saga: name, keys, .. }) => {
            saga.name() == *name && keys.contains(&order.as_uuid())
        }
        _ => false,
    };
    let verdict = |delivery: &Delivery<Incoming>| match concerned(&delivery.message) {
        true => Verdict::Retry { class: SagaError::UNKNOWN_VERSION, why: error.to_string() },
        false => Verdict::Done,
    };
    deliveries.iter().map(verdict).collect()
}

fn sorted_out(deliveries: &[Delivery<Incoming>]) -> (Vec<PriceNotice>, SagaInputs) {
    let (mut notices, mut inputs) = (Vec::new(), SagaInputs::default());
    for Delivery { envelope, message } in deliveries {
        match message {
            Incoming::Priced { sku, price } => notices.push(PriceNotice {
                sku: sku.clone(),
                price: price.clone(),
                version: envelope.sequence,
            }),
            Incoming::Reply { order, saga, input } => {
                let input = (order.as_uuid(), input.clone(), envelope.as_cause());
                match saga {
                    Saga::Place => inputs.place.push(input),
                    Saga::Cancel => inputs.cancel.push(input),
                }
            }
        }
    }
    (notices, inputs)
}

/// What a failed command means to a batch: the database's trouble is judged by its code, anything else is this
/// message's fault and becomes a dead letter.
impl From<CommandError> for HandlerError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Store(error) => error.into(),
            CommandError::Saga(error) => error.into(),
            CommandError::Codec(error) => error.into(),
            CommandError::OutOfStep { ref source, .. } => Self::fault(format!("{error}: {source}")),
            CommandError::OrderMissing { .. } => Self::fault(error),
        }
    }
}
