//! For tests only: a database and a topic prefix per test, access tokens, running processes, bounded polling.
//!
//! `cargo xtask test` starts one PostgreSQL and one Kafka for the whole run and hands their addresses over in the
//! environment; everything below makes its own corner on them. Only tests that stop, kill or promote a server start
//! their own: [`own_servers`].

pub mod database;
pub mod dice;
pub mod own_servers;
pub mod polling;
pub mod ports;
pub mod process;
pub mod servers;
pub mod tokens;
pub mod topics;

pub use database::TestDatabase;
pub use dice::Dice;
pub use own_servers::{OwnKafka, OwnPostgres, TcpSwitch};
pub use polling::eventually;
pub use process::{Process, ProcessBuilder};
pub use servers::{kafka_bootstrap, postgres_url};
pub use tokens::Tokens;
pub use topics::{OwnedRecord, TestTopics};
