//! The commands as a user types them, on real servers in a folder of this test's own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compose;
mod drill;
mod servers;
mod shell;
mod system;
mod up;
