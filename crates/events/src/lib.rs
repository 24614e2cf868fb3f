//! The Rust face of schemas/: what the services say to each other, and the words they say it in.
//!
//! A type per message (wire types: they hold what the schema says, and no behaviour), identifiers and money that check
//! themselves when they are read, the names of the topics and their manifest. Nothing here knows a service.

mod contracts;
pub mod ids;
pub mod inventory;
pub mod money;
pub mod orders;
pub mod payments;
pub mod topics;

pub use contracts::{KNOWN, Known, Published, check};
pub use ids::{CustomerId, OrderId, Sku};
pub use money::{Currency, Money};
pub use topics::topic;
