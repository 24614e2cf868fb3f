//! Inventory and payments, as far as the sagas hear of them: replies by hand, and participants that obey by themselves.

use std::collections::BTreeMap;

use chrono::Utc;
use uuid::Uuid;
use waybill_events::inventory::{
    StockCommitted, StockRejected, StockReleased, StockReserved, StockRestocked,
};
use waybill_events::payments::{
    PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentRefunded, PaymentVoided,
};
use waybill_events::{Currency, OrderId, Published};
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::{Draft, Message};

use crate::world::World;

/// What a participant may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    Reserved,
    Rejected(&'static str),
    Released,
    Committed,
    Restocked,
    Authorized,
    Declined,
    Voided,
    Captured,
    Refunded,
    Failed(&'static str),
}

impl Say {
    /// The reply as a new message.
    pub(crate) fn of(self, order: Uuid) -> Message {
        let (order_id, attempt) = (OrderId::from(order), 1);
        let (amount_minor, currency) = (3048, "EUR".parse::<Currency>().unwrap());
        match self {
            Self::Reserved => reply(order, &StockReserved { order_id }),
            Self::Rejected(reason) => {
                reply(order, &StockRejected { order_id, reason: reason.to_owned(), sku: None })
            }
            Self::Released => reply(order, &StockReleased { order_id }),
            Self::Committed => reply(order, &StockCommitted { order_id }),
            Self::Restocked => reply(order, &StockRestocked { order_id }),
            Self::Authorized => {
                reply(order, &PaymentAuthorized { order_id, attempt, amount_minor, currency })
            }
            Self::Declined => {
                reply(order, &PaymentDeclined { order_id, attempt, reason: "card_expired".to_owned() })
            }
            Self::Voided => reply(order, &PaymentVoided { order_id, attempt }),
            Self::Captured => reply(order, &PaymentCaptured { order_id, attempt, amount_minor, currency }),
            Self::Refunded => reply(order, &PaymentRefunded { order_id, attempt, amount_minor, currency }),
            Self::Failed(operation) => {
                let (operation, reason) = (operation.to_owned(), "provider_away".to_owned());
                reply(order, &PaymentFailed { order_id, attempt, operation, reason })
            }
        }
    }
}

fn reply<T: Published>(order: Uuid, event: &T) -> Message {
    let cause = Cause { correlation_id: order, causation_id: Some(Uuid::now_v7()), trace: None };
    let draft = Draft::new(T::TOPIC, order.to_string(), event).unwrap();
    draft.finish(Uuid::now_v7(), Utc::now(), "/waybill/participant", 1, cause)
}

/// Participants that approve everything, remember tombstones, and read their commands from the outbox.
#[derive(Default)]
pub(crate) struct Participants {
    read_up_to: i64,
    /// Orders whose stock was released, and whose payment was voided: acts that come later are refused.
    released: BTreeMap<Uuid, ()>,
    voided: BTreeMap<Uuid, ()>,
}

impl Participants {
    /// The replies to every command said since the last call.
    pub(crate) async fn replies(&mut self, world: &World) -> Vec<Message> {
        let commands: Vec<(i64, String, String)> = sqlx::query_as(
            "select id, headers->>'ce_type', convert_from(key, 'UTF8') from outbox
             where id > $1 and topic like '%.commands' order by id",
        )
        .bind(self.read_up_to)
        .fetch_all(world.pool())
        .await
        .unwrap();
        let mut replies = Vec::new();
        for (id, command, key) in commands {
            self.read_up_to = id;
            let order: Uuid = key.parse().unwrap();
            replies.push(self.obey(&command, order).of(order));
        }
        replies
    }

    fn obey(&mut self, command: &str, order: Uuid) -> Say {
        match command {
            "ReserveStock" if self.released.contains_key(&order) => Say::Rejected("released"),
            "ReserveStock" => Say::Reserved,
            "ReleaseStock" => {
                self.released.insert(order, ());
                Say::Released
            }
            "AuthorizePayment" if self.voided.contains_key(&order) => Say::Declined,
            "AuthorizePayment" => Say::Authorized,
            "VoidPayment" => {
                self.voided.insert(order, ());
                Say::Voided
            }
            "CapturePayment" => Say::Captured,
            "CommitStock" => Say::Committed,
            "RefundPayment" => Say::Refunded,
            "RestockOrder" => Say::Restocked,
            other => panic!("orders commands {other}"),
        }
    }

    /// Obeys until there is nothing left to obey.
    pub(crate) async fn run(&mut self, world: &World) {
        loop {
            let replies = self.replies(world).await;
            if replies.is_empty() {
                return;
            }
            world.hear(&replies).await;
        }
    }
}

impl World {
    /// Hands over these replies of one order, each as a batch of its own.
    pub(crate) async fn reply(&self, order: Uuid, replies: &[Say]) {
        for say in replies {
            self.hear(&[say.of(order)]).await;
        }
    }
}
