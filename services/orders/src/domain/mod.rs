//! The rules of orders, pure: time, ids and prices come in as arguments, nothing here does I/O.

pub mod limits;
pub mod order;
pub mod pricing;
pub mod reason;
pub mod viewer;
