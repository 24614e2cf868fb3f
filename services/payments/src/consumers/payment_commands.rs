//! Group `payments` on `payments.commands`: decodes commands and has them obeyed, a wave at a time.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::Notify;
use waybill_events::payments::{AuthorizePayment, CapturePayment, RefundPayment, VoidPayment};
use waybill_messaging::codec::{self, CodecError, Contract};
use waybill_messaging::message::Message;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, Verdict};
use waybill_runtime::clock::Clock;

use crate::commands::obey_commands::{Asked, obey_commands};
use crate::domain::obey::PaymentCommand;
use crate::domain::payment::{PaymentKey, Terms};

/// The consumer group, without prefix.
pub const GROUP: &str = "payments";

/// A command and the payment it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    key: PaymentKey,
    command: PaymentCommand,
}

impl From<AuthorizePayment> for Command {
    fn from(wire: AuthorizePayment) -> Self {
        let AuthorizePayment { order_id, customer_id, attempt, amount_minor, currency, payment_token } = wire;
        let terms = Terms { customer_id, amount_minor, currency, token: payment_token };
        Self { key: PaymentKey { order_id, attempt }, command: PaymentCommand::Authorize(terms) }
    }
}

impl From<VoidPayment> for Command {
    fn from(VoidPayment { order_id, attempt }: VoidPayment) -> Self {
        Self { key: PaymentKey { order_id, attempt }, command: PaymentCommand::Void }
    }
}

impl From<CapturePayment> for Command {
    fn from(CapturePayment { order_id, attempt }: CapturePayment) -> Self {
        Self { key: PaymentKey { order_id, attempt }, command: PaymentCommand::Capture }
    }
}

impl From<RefundPayment> for Command {
    fn from(RefundPayment { order_id, attempt, amount_minor }: RefundPayment) -> Self {
        Self { key: PaymentKey { order_id, attempt }, command: PaymentCommand::Refund { amount_minor } }
    }
}

/// Obeys the commands of the order saga.
pub struct PaymentCommands {
    clock: Arc<dyn Clock>,
    due: Arc<Notify>,
}

impl PaymentCommands {
    /// With the clock that replies are dated by, and who is told when something has become due.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, due: Arc<Notify>) -> Self {
        Self { clock, due }
    }
}

impl Handler for PaymentCommands {
    type Message = Command;

    fn group(&self) -> &str {
        GROUP
    }

    fn decode(&self, kind: &str, payload: &[u8]) -> Result<Option<Command>, CodecError> {
        Ok(Some(match kind {
            AuthorizePayment::TYPE => codec::decode::<AuthorizePayment>(payload)?.into(),
            VoidPayment::TYPE => codec::decode::<VoidPayment>(payload)?.into(),
            CapturePayment::TYPE => codec::decode::<CapturePayment>(payload)?.into(),
            RefundPayment::TYPE => codec::decode::<RefundPayment>(payload)?.into(),
            _ => return Ok(None),
        }))
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Command>],
        out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        // The record's key decides the order of commands: one under another key may come at any time.
        if let Some(stray) =
            deliveries.iter().find(|d| d.envelope.subject != d.message.key.order_id.to_string())
        {
            let order = stray.message.key.order_id;
            return Err(HandlerError::fault(format!(
                "the key {:?} is not the order {order}",
                stray.envelope.subject
            )));
        }
        let asked = |delivery: &Delivery<Command>| Asked {
            key: delivery.message.key,
            command: delivery.message.command.clone(),
            cause: delivery.envelope.as_cause(),
        };
        let asked: Vec<Asked> = deliveries.iter().map(asked).collect();
        let obeyed = obey_commands(conn, &asked, self.clock.now(), out).await?;
        let verdict = |obeyed| match obeyed {
            Ok(()) => Verdict::Done,
            Err(breach) => reject(&breach),
        };
        Ok(obeyed.into_iter().map(verdict).collect())
    }

    fn committed(&self) {
        self.due.notify_one();
    }
}

fn reject(breach: &crate::domain::obey::Breach) -> Verdict {
    Verdict::Reject { class: breach.class(), why: breach.to_string() }
}
