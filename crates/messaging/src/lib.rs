//! The Kafka side: what a message is, how its bytes are made and read, which topics exist, how a group consumes them.

pub mod codec;
pub mod config;
pub mod consumer;
pub mod envelope;
pub mod headers;
pub mod message;
pub mod partitioner;
pub mod reader;
pub mod record;
pub mod security;
pub mod topics;
