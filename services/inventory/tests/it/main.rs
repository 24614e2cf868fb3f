//! Inventory's integration tests, one binary: real PostgreSQL, and real Kafka where the program itself runs.
#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod bad_input;
mod conservation;
mod desk;
mod openapi;
mod permutations;
mod process;
mod products;
mod reservations;
mod shipped;
mod stock;
mod waves;
mod world;
