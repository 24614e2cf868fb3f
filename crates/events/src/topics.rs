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
    /// What the group `orders` retries of [`INVENTORY_EVENTS`], tier 1.
    pub const INVENTORY_EVENTS_ORDERS_RETRY_1: &str = "inventory.events.orders.retry.1";
    /// What the group `orders` retries of [`INVENTORY_EVENTS`], tier 2.
    pub const INVENTORY_EVENTS_ORDERS_RETRY_2: &str = "inventory.events.orders.retry.2";
    /// What the group `orders` retries of [`INVENTORY_EVENTS`], tier 3.
    pub const INVENTORY_EVENTS_ORDERS_RETRY_3: &str = "inventory.events.orders.retry.3";
    /// What the group `orders` retries of [`PAYMENTS_EVENTS`], tier 1.
    pub const PAYMENTS_EVENTS_ORDERS_RETRY_1: &str = "payments.events.orders.retry.1";
    /// What the group `orders` retries of [`PAYMENTS_EVENTS`], tier 2.
    pub const PAYMENTS_EVENTS_ORDERS_RETRY_2: &str = "payments.events.orders.retry.2";
    /// What the group `orders` retries of [`PAYMENTS_EVENTS`], tier 3.
    pub const PAYMENTS_EVENTS_ORDERS_RETRY_3: &str = "payments.events.orders.retry.3";
    /// What the group `inventory` retries of [`INVENTORY_COMMANDS`], tier 1.
    pub const INVENTORY_COMMANDS_INVENTORY_RETRY_1: &str = "inventory.commands.inventory.retry.1";
    /// What the group `inventory` retries of [`INVENTORY_COMMANDS`], tier 2.
    pub const INVENTORY_COMMANDS_INVENTORY_RETRY_2: &str = "inventory.commands.inventory.retry.2";
    /// What the group `inventory` retries of [`INVENTORY_COMMANDS`], tier 3.
    pub const INVENTORY_COMMANDS_INVENTORY_RETRY_3: &str = "inventory.commands.inventory.retry.3";
    /// What the group `payments` retries of [`PAYMENTS_COMMANDS`], tier 1.
    pub const PAYMENTS_COMMANDS_PAYMENTS_RETRY_1: &str = "payments.commands.payments.retry.1";
    /// What the group `payments` retries of [`PAYMENTS_COMMANDS`], tier 2.
    pub const PAYMENTS_COMMANDS_PAYMENTS_RETRY_2: &str = "payments.commands.payments.retry.2";
    /// What the group `payments` retries of [`PAYMENTS_COMMANDS`], tier 3.
    pub const PAYMENTS_COMMANDS_PAYMENTS_RETRY_3: &str = "payments.commands.payments.retry.3";

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
        INVENTORY_EVENTS_ORDERS_RETRY_1,
        INVENTORY_EVENTS_ORDERS_RETRY_2,
        INVENTORY_EVENTS_ORDERS_RETRY_3,
        PAYMENTS_EVENTS_ORDERS_RETRY_1,
        PAYMENTS_EVENTS_ORDERS_RETRY_2,
        PAYMENTS_EVENTS_ORDERS_RETRY_3,
        INVENTORY_COMMANDS_INVENTORY_RETRY_1,
        INVENTORY_COMMANDS_INVENTORY_RETRY_2,
        INVENTORY_COMMANDS_INVENTORY_RETRY_3,
        PAYMENTS_COMMANDS_PAYMENTS_RETRY_1,
        PAYMENTS_COMMANDS_PAYMENTS_RETRY_2,
        PAYMENTS_COMMANDS_PAYMENTS_RETRY_3,
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
