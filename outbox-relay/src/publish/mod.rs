//! The Kafka side: producers that keep order and never give a row up, and the record of what landed.

mod context;
mod headers;
mod landing;
mod partitions;
mod producer;

pub use headers::headers;
pub use landing::{Failure, Landing, Tag};
pub(crate) use producer::PRODUCER_ENDED;
pub use producer::{Producer, ProducerError, Send, TopicCheck, Way};
