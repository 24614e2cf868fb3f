//! Group `inventory` on `inventory.commands`: orders' sagas command, every command is answered or becomes a dead letter.

use std::sync::Arc;

use prometheus::IntCounterVec;
use sqlx::PgConnection;
use waybill_events::OrderId;
use waybill_events::inventory::{CommitStock, ReleaseStock, ReserveStock, RestockOrder};
use waybill_messaging::codec::{self, CodecError, Contract};
use waybill_messaging::message::Message;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, Verdict};
use waybill_runtime::clock::{self, Clock};
use waybill_telemetry::metrics;

use crate::commands::messages::{self, SOURCE};
use crate::commands::obey_stock_commands::obey_stock_commands;
use crate::domain::reservation::{Reply, StockCommand};
use crate::domain::shelf::Lines;
use crate::domain::stock::{Line, Pieces};
use crate::domain::wave::Answer;

/// The consumer group, without prefix.
pub const GROUP: &str = "inventory";

/// A decoded command, still in the wire's types.
#[derive(Debug, Clone)]
pub enum WireCommand {
    /// Hold every line, or none.
    Reserve(ReserveStock),
    /// Give back what is held; hold nothing later.
    Release(ReleaseStock),
    /// What is held is shipped.
    Commit(CommitStock),
    /// What was shipped is back.
    Restock(RestockOrder),
}

impl WireCommand {
    fn order_id(&self) -> OrderId {
        match self {
            Self::Reserve(command) => command.order_id,
            Self::Release(command) => command.order_id,
            Self::Commit(command) => command.order_id,
            Self::Restock(command) => command.order_id,
        }
    }

    /// The domain's command; an error says what in the message breaks the contract.
    fn command(&self) -> Result<StockCommand, String> {
        match self {
            Self::Reserve(command) => lines(command).map(StockCommand::Reserve),
            Self::Release(_) => Ok(StockCommand::Release),
            Self::Commit(_) => Ok(StockCommand::Commit),
            Self::Restock(_) => Ok(StockCommand::Restock),
        }
    }
}

fn lines(command: &ReserveStock) -> Result<Lines, String> {
    let line = |(at, line): (usize, &waybill_events::inventory::StockLine)| {
        let pieces = Pieces::ordered(line.quantity);
        let pieces =
            pieces.map_err(|error| format!("lines[{at}].quantity {error}, it is {}", line.quantity))?;
        Ok(Line { sku: line.sku.clone(), pieces })
    };
    let lines = command.lines.iter().enumerate().map(line).collect::<Result<Vec<_>, String>>()?;
    Lines::new(lines).map_err(|error| error.to_string())
}

/// Handles the group's messages. Keeps no state: everything is in the rows.
pub struct InventoryCommands {
    clock: Arc<dyn Clock>,
    answered: IntCounterVec,
}

impl InventoryCommands {
    /// A handler whose replies carry this clock's time.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let help = "Commands answered, by command and answer; a batch that is done again counts again.";
        Self {
            clock,
            answered: metrics::counter_vec("inventory_commands_total", help, &["command", "answer"]),
        }
    }

    fn reply(
        &self,
        delivery: &Delivery<WireCommand>,
        order_id: OrderId,
        answer: &Answer,
    ) -> Result<Message, CodecError> {
        self.answered.with_label_values(&[delivery.envelope.kind.as_str(), word(&answer.reply)]).inc();
        let draft = messages::reply(order_id, &answer.reply)?;
        let cause = delivery.envelope.as_cause();
        Ok(draft.finish(clock::new_id(), self.clock.now(), SOURCE, answer.version, cause))
    }
}

/// The metric's word for an answer: bounded, unlike SKUs.
fn word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Reserved => "reserved",
        Reply::Rejected(refusal) => refusal.reason(),
        Reply::Released => "released",
        Reply::Committed => "committed",
        Reply::Restocked => "restocked",
    }
}

impl Handler for InventoryCommands {
    type Message = WireCommand;

    fn group(&self) -> &str {
        GROUP
    }

    fn decode(&self, kind: &str, payload: &[u8]) -> Result<Option<WireCommand>, CodecError> {
        Ok(Some(match kind {
            ReserveStock::TYPE => WireCommand::Reserve(codec::decode(payload)?),
            ReleaseStock::TYPE => WireCommand::Release(codec::decode(payload)?),
            CommitStock::TYPE => WireCommand::Commit(codec::decode(payload)?),
            RestockOrder::TYPE => WireCommand::Restock(codec::decode(payload)?),
            _ => return Ok(None),
        }))
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<WireCommand>],
        out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        let parsed: Vec<Result<StockCommand, Verdict>> = deliveries.iter().map(parse).collect();
        let commands: Vec<(OrderId, StockCommand)> = deliveries
            .iter()
            .zip(&parsed)
            .filter_map(|(delivery, parsed)| {
                Some((delivery.message.order_id(), parsed.as_ref().ok()?.clone()))
            })
            .collect();
        let mut answers = obey_stock_commands(conn, &commands).await?.into_iter();
        let mut verdicts = Vec::with_capacity(deliveries.len());
        for (delivery, parsed) in deliveries.iter().zip(parsed) {
            let verdict = match (parsed, delivery.message.order_id()) {
                (Err(verdict), _) => verdict,
                (Ok(_), order_id) => match answers.next() {
                    Some(Ok(answer)) => {
                        out.push(self.reply(delivery, order_id, &answer)?);
                        Verdict::Done
                    }
                    Some(Err(breach)) => Verdict::Reject { class: breach.class(), why: told_whole(&breach) },
                    None => return Err(HandlerError::fault("a command was left without an answer")),
                },
            };
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }
}

/// The domain's command, or the verdict on a message that breaks the contract.
fn parse(delivery: &Delivery<WireCommand>) -> Result<StockCommand, Verdict> {
    let reject = |why| Verdict::Reject { class: "invalid_command", why };
    let order_id = delivery.message.order_id();
    // Order and the set-wise work both rest on the key being the order.
    if delivery.envelope.subject != order_id.to_string() {
        return Err(reject(format!(
            "the key is {:?} but the order_id is {order_id}",
            delivery.envelope.subject
        )));
    }
    delivery.message.command().map_err(reject)
}

/// An error and its causes in one line: a dead letter has no other place for them.
fn told_whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}
