//! All SQL of this service, one statement per function; whoever calls decides about the transaction.

pub mod catalogue;
pub mod orders;
pub mod placement;
mod rows;
