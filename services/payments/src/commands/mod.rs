//! The use cases, each one transaction: both the consumer and the worker come here.

pub mod obey_commands;
pub mod record_outcomes;
mod reply;
