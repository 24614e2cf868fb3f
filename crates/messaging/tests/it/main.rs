//! Integration tests of the Kafka side, on a real broker.

mod consumer;
