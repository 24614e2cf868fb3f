//! Inventory's integration tests, one binary: real PostgreSQL, and real Kafka for one slice from command to dead letter.

mod conservation;
