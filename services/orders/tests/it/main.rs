//! Promises of orders, on a real Postgres: placing, reading, cancelling, every way of both sagas, the program itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "an exploration tells how much it has seen")]

mod backward;
mod bad_input;
mod cancelling;
mod catalogue;
mod deadlines;
mod explored;
mod forward;
mod openapi;
mod operators;
mod overload;
mod participants;
mod placing;
mod pools;
mod process;
mod reading;
mod round_trips;
mod storms;
mod timeline;
mod together;
mod troubles;
mod world;
