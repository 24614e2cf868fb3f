//! Orders: the order aggregate, its sagas, its HTTP interface and its price projection. Read this service first.
//!
//! | module | job |
//! |---|---|
//! | [`http`] | in: requests from customers; parse, call a command, answer |
//! | [`consumers`] | in: events of inventory and payments; decode, call a command |
//! | [`commands`] | one use case per file, each one transaction; both entrances meet here |
//! | [`sagas`] | the two sagas as tables of steps, and the order of locks |
//! | [`domain`] | the rules, pure: the order as a state machine, prices, limits |
//! | [`store`] | all SQL, one statement per function |
//! | [`service`] | wires it all together |
//! | [`config`] | settings from the environment |
//!
//! A placed order in one breath: `http/orders.rs` parses the request, `commands/place_order.rs` prices and writes it
//! together with its saga's first command, the relay publishes, `consumers/orders_group.rs` hears the replies, and
//! `commands/saga_progress.rs` moves the saga on and lets the order follow.

pub mod commands;
pub mod config;
pub mod consumers;
pub mod domain;
pub mod http;
mod metrics;
pub mod sagas;
pub mod service;
pub mod store;
