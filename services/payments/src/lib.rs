//! Payments: authorize, capture, void and refund through a provider, obeying `payments.commands`.
//!
//! | module | job |
//! |---|---|
//! | [`http`] | in: who may read which payment |
//! | [`consumers`] | in: the commands of the order saga |
//! | [`worker`] | in: what is due to be asked of the provider, asked outside any transaction |
//! | [`commands`] | one use case, one transaction: obey commands, record outcomes |
//! | [`domain`] | pure: the payment as a state machine |
//! | [`provider`] | out: the provider's contract, and the sandbox that keeps it |
//! | [`store`] | all SQL |

pub mod commands;
pub mod config;
pub mod consumers;
pub mod domain;
pub mod http;
pub mod provider;
pub mod service;
pub mod store;
pub mod worker;
