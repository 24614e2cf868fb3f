//! The four stories and what else must be seen from outside, on a system of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod audit;
mod independent;
mod lifecycle;
mod shop;
mod stories;
mod system;
