//! The Kafka side: a threaded producer that keeps order and never gives a row up, and the record of what landed.

mod context;
mod headers;
mod landing;
mod partitions;
mod producer;

pub use headers::headers;
pub use landing::{Failure, Landing, Tag};
pub(crate) use producer::PRODUCER_ENDED;
pub use producer::{Destination, Producer, ProducerError, Send, TopicCheck};
