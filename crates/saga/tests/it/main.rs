//! The saga crate's promises: explored in pure form, and checked on a real Postgres.

mod arbitrary;
mod exploration;
mod sagas;
mod world;
