//! The four stories and what else must be seen from outside, on a system of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "shown with a failure: the seed, and how much was going on")]

mod alerts;
mod bounded;
mod bugs;
mod clocks;
mod crashes;
mod deliveries;
mod denied;
mod desk;
mod explained;
mod faults;
mod hang_ups;
mod idle;
mod independent;
mod invariants;
mod journal;
mod keys;
mod letters;
mod lifecycle;
mod load;
mod overtaking;
mod planted;
mod poison;
mod replay_killed;
mod republished;
mod retention;
mod runbooks;
mod servers;
mod shop;
mod stories;
mod stuck;
mod system;
mod worker;
mod zombies;
