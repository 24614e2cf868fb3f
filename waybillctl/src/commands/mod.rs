//! One file a noun: each verb in it parses nothing, asks or changes the system, and says what it saw.

pub(crate) mod topics;
