//! Stories joined from told facts and real topics.

#![expect(clippy::unwrap_used, reason = "a test that can not go on ends there")]

mod join;
mod places;
mod told;
