//! Ordered retry: one head of a key travels through retry topics, the rest of the key waits in order.
//!
//! | module | job |
//! |---|---|
//! | [`policy`] | tiers, attempts, what a dead letter does to its key, bounds |
//! | [`key_state`] | the state of a parked key |
//! | [`brake`] | when most of the last keys fail alike, the consumer pauses; pure |
//! | [`decide`] | what becomes of a record and its key; pure, explored exhaustively by a test |

pub mod brake;
pub mod decide;
pub mod key_state;
pub mod policy;

pub use self::key_state::KeyState;
pub use self::policy::{BrakePolicy, Poisoned, Policy};
