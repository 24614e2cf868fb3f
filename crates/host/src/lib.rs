//! A service's process: what starts and stops in which order, the same for every service.
//!
//! 1. Both listeners, the API's and the operators', so that `/health` and `/ready` answer from the first moment; what needs
//!    more says 503 until 3 is done.
//! 2. The keys that access tokens are verified with; a JWKS server that is away is waited for, `/ready` saying 503.
//! 3. Postgres, its tables and partitions; Kafka and the topics as the manifest declares them. What is away is waited
//!    for, and the log and `/ready` say for what.
//! 4. The consumer, the one of the group's retry topics, the drainer of what is held, the upkeep of the tables, the watch
//!    over the backlog, and the service's own workers.
//!
//! At the end, all of it is asked to stop at once and gets `WAYBILL_SHUTDOWN_TIMEOUT_MS` together: requests and the
//! batch in hand are finished, offsets committed. A part that ends on its own ends the process with exit code 1.
//!
//! | module | job |
//! |---|---|
//! | [`Program`] | a `main`: settings, log, run, exit code |
//! | [`Settings`] | what every service reads |
//! | [`Host`] | the order of start and stop |
//! | [`operator`] | the operators' API |
//! | `intake` | commands are turned away while too much waits to be published |
//! | [`faults`] | failures on purpose, in development only |

pub mod faults;
mod health;
mod host;
mod intake;
pub mod operator;
mod peers;
mod prepare;
mod program;
mod serving;
mod settings;

pub use host::{Host, Service};
pub use peers::{Peer, Peers};
pub use program::Program;
pub use settings::{Defaults, OutboxBound, Settings};
