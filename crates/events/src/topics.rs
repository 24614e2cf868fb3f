//! The names of the topics, and the manifest that declares their shape.

use waybill_messaging::topics::{Manifest, TopicsError};

/// Topic names, without prefix. Each is declared in schemas/topics.toml.
pub mod topic {
    /// What happened to orders; keyed by order id, `ce_sequence` is the order's version.
    pub const ORDERS_EVENTS: &str = "orders.events";
    /// What inventory is told to do; keyed by order id.
    pub const INVENTORY_COMMANDS: &str = "inventory.commands";
    /// What inventory answers (keyed by order id) and what its catalogue holds (keyed by SKU).
    pub const INVENTORY_EVENTS: &str = "inventory.events";
    /// What payments is told to do; keyed by order id.
    pub const PAYMENTS_COMMANDS: &str = "payments.commands";
    /// What payments answers; keyed by order id.
    pub const PAYMENTS_EVENTS: &str = "payments.events";
    /// What the group `orders` could not handle of [`INVENTORY_EVENTS`].
    pub const INVENTORY_EVENTS_ORDERS_DLQ: &str = "inventory.events.orders.dlq";
    /// What the group `orders` could not handle of [`PAYMENTS_EVENTS`].
    pub const PAYMENTS_EVENTS_ORDERS_DLQ: &str = "payments.events.orders.dlq";
    /// What the group `inventory` could not handle of [`INVENTORY_COMMANDS`].
    pub const INVENTORY_COMMANDS_INVENTORY_DLQ: &str = "inventory.commands.inventory.dlq";
    /// What the group `payments` could not handle of [`PAYMENTS_COMMANDS`].
    pub const PAYMENTS_COMMANDS_PAYMENTS_DLQ: &str = "payments.commands.payments.dlq";

    /// Every topic above.
    pub const ALL: &[&str] = &[
        ORDERS_EVENTS,
        INVENTORY_COMMANDS,
        INVENTORY_EVENTS,
        PAYMENTS_COMMANDS,
        PAYMENTS_EVENTS,
        INVENTORY_EVENTS_ORDERS_DLQ,
        PAYMENTS_EVENTS_ORDERS_DLQ,
        INVENTORY_COMMANDS_INVENTORY_DLQ,
        PAYMENTS_COMMANDS_PAYMENTS_DLQ,
    ];
}

/// The text of schemas/topics.toml, as it was when this program was built.
#[must_use]
pub fn manifest() -> &'static str {
    include_str!("../../../schemas/topics.toml")
}

/// The manifest, read.
///
/// # Errors
/// None for a committed manifest (a test reads it); typed like any other manifest's.
pub fn manifest_parsed() -> Result<Manifest, TopicsError> {
    Manifest::parse(manifest())
}
