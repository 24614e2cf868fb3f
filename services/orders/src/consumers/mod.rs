//! What this service hears: one consumer group, `orders`, on the events of inventory and payments.

pub mod deadlines;
pub mod incoming;
pub mod orders_group;
