//! What comes in over Kafka: one file per consumer group.

pub mod inventory_commands;
