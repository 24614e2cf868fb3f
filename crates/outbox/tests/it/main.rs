//! Integration tests of outbox and inbox, on a real Postgres and a real broker.

mod append;
mod inbox;
mod kafka;
mod ledger;
mod partitions;
