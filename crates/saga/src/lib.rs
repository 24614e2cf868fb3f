//! Sagas as tables of steps: a pure engine, and the runner that keeps its instances in Postgres.
//!
#![doc = include_str!("../README.md")]

pub mod definition;
pub mod engine;
pub mod error;
pub mod input;
pub mod instance;
pub mod log;
mod metrics;
pub mod operate;
mod outgoing;
pub mod retention;
pub mod runner;
pub mod sequences;
pub mod state;
mod stepping;
mod store;
pub mod sweeper;
mod timer;

pub use definition::{Act, Compensation, Definition, Step};
pub use engine::{Effect, REASON_TIMED_OUT};
pub use error::SagaError;
pub use input::{Ignored, Input, Outcome, Verb};
pub use instance::{Advanced, Instance, InstanceRow, Started};
pub use runner::Runner;
pub use sequences::Sequences;
pub use state::{Ending, Phase, State, Status};

/// The tables `saga_instances` and `saga_log` and the function `saga_start` (versions 3xx). Run them with
/// `set_ignore_missing(true)`: other crates keep theirs in the same database; sweeping deadlines needs the outbox's.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
