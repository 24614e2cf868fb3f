//! Publishes committed outbox rows to Kafka, in order; one process serves many databases.
//!
//! | module | job |
//! |---|---|
//! | [`core`] | what is decided, without I/O: rounds, positions, leases |
//! | [`store`] | all SQL: reading the outbox, the row of position and lease |
//! | [`publish`] | the Kafka side: producer, acknowledgements, headers |
//! | [`worker`] | one database's relay: read and publish under the lease, begin again after a fault |
//! | [`fleet`] | the workers of a process, as the list of databases says |
//! | [`reload`] | the configuration file read again |
//! | [`status`], [`metrics`] | how it is, for `/ready` and `/metrics` |
//! | [`config`] | settings from environment and file |
//! | [`run`] | the process |

pub mod config;
pub mod core;
pub mod fleet;
pub mod metrics;
pub mod publish;
pub mod reload;
pub mod run;
pub mod status;
pub mod store;
pub mod worker;
