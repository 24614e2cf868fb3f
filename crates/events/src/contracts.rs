//! Every message in one list: its type, its service, its pinned id and its topic.

use waybill_messaging::codec::{CodecError, Contract, decode};

use crate::topics::topic;
use crate::{inventory, orders, payments};

/// A message of ours: a contract that belongs on one topic.
pub trait Published: Contract {
    /// Name of its topic, without prefix.
    const TOPIC: &'static str;
}

/// What is known of a message without its type: for tools that meet any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Full name of the record, e.g. `waybill.orders.OrderPlaced`.
    pub name: &'static str,
    /// What `ce_type` says, e.g. `OrderPlaced`.
    pub kind: &'static str,
    /// The pinned schema id.
    pub schema_id: u32,
    /// The Avro schema, as JSON.
    pub schema: &'static str,
    /// Name of its topic, without prefix.
    pub topic: &'static str,
}

macro_rules! contracts {
    ($($id:literal $service:ident $message:ident $topic:ident;)*) => {
        $(
            impl Contract for $service::$message {
                const NAME: &'static str = concat!("waybill.", stringify!($service), ".", stringify!($message));
                const TYPE: &'static str = stringify!($message);
                const SCHEMA_ID: u32 = $id;
                const SCHEMA: &'static str =
                    include_str!(concat!("../../../schemas/", stringify!($service), "/", stringify!($message), ".avsc"));
            }

            impl Published for $service::$message {
                const TOPIC: &'static str = topic::$topic;
            }
        )*

        /// Every message, in the order of their ids.
        pub const KNOWN: &[Known] = &[$(
            Known {
                name: <$service::$message as Contract>::NAME,
                kind: <$service::$message as Contract>::TYPE,
                schema_id: $id,
                schema: <$service::$message as Contract>::SCHEMA,
                topic: topic::$topic,
            },
        )*];

        /// Reads a frame of the message with this schema id as its consumers do, values checked: an id that is no UUID, an
        /// unknown currency. `None` when no message has this id.
        ///
        /// # Errors
        /// What a consumer would meet; such a frame would be a dead letter.
        #[must_use]
        pub fn check(schema_id: u32, frame: &[u8]) -> Option<Result<(), CodecError>> {
            match schema_id {
                $($id => Some(decode::<$service::$message>(frame).map(|_| ())),)*
                _ => None,
            }
        }
    };
}

// Ids are pinned in schemas/ids.json: add at the end, change nothing.
contracts! {
    1 orders OrderPlaced ORDERS_EVENTS;
    2 orders OrderConfirmed ORDERS_EVENTS;
    3 orders OrderRejected ORDERS_EVENTS;
    4 orders OrderCancellationRequested ORDERS_EVENTS;
    5 orders OrderCancelled ORDERS_EVENTS;
    6 inventory ReserveStock INVENTORY_COMMANDS;
    7 inventory ReleaseStock INVENTORY_COMMANDS;
    8 inventory CommitStock INVENTORY_COMMANDS;
    9 inventory RestockOrder INVENTORY_COMMANDS;
    10 inventory StockReserved INVENTORY_EVENTS;
    11 inventory StockRejected INVENTORY_EVENTS;
    12 inventory StockReleased INVENTORY_EVENTS;
    13 inventory StockCommitted INVENTORY_EVENTS;
    14 inventory StockRestocked INVENTORY_EVENTS;
    15 inventory ProductAdded INVENTORY_EVENTS;
    16 inventory ProductPriceChanged INVENTORY_EVENTS;
    17 inventory StockReceived INVENTORY_EVENTS;
    18 payments AuthorizePayment PAYMENTS_COMMANDS;
    19 payments VoidPayment PAYMENTS_COMMANDS;
    20 payments CapturePayment PAYMENTS_COMMANDS;
    21 payments RefundPayment PAYMENTS_COMMANDS;
    22 payments PaymentAuthorized PAYMENTS_EVENTS;
    23 payments PaymentDeclined PAYMENTS_EVENTS;
    24 payments PaymentVoided PAYMENTS_EVENTS;
    25 payments PaymentCaptured PAYMENTS_EVENTS;
    26 payments PaymentRefunded PAYMENTS_EVENTS;
    27 payments PaymentFailed PAYMENTS_EVENTS;
}
