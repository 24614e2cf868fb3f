//! Inventory: the catalogue, the stock and its ledger, and the reservations that orders' sagas command.
//!
//! | module | job |
//! |---|---|
//! | [`http`], [`consumers`] | the two entrances |
//! | [`commands`] | one use case per file, one transaction each |
//! | [`domain`] | what is decided, pure |
//! | [`store`] | all SQL |
//! | [`config`], [`service`] | settings and wiring |

pub mod commands;
pub mod config;
pub mod consumers;
pub mod domain;
pub mod http;
pub mod service;
pub mod store;
