//! One file a noun: each verb in it parses nothing, asks or changes the system, and says what it saw.

pub(crate) mod audit;
pub(crate) mod change;
pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod order;
pub(crate) mod outbox;
pub(crate) mod parked;
pub(crate) mod saga;
pub(crate) mod schemas;
pub(crate) mod topics;
pub(crate) mod verify;
