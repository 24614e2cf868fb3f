//! What comes in from Kafka.

pub mod payment_commands;
