//! What inventory decides, pure: no clock, no ids made here, no I/O.

pub mod price;
pub mod product;
pub mod reservation;
pub mod shelf;
pub mod stock;
pub mod value;
pub mod wave;
