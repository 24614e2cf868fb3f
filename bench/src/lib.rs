//! Measures one order's whole path on one machine, with real servers and the processes as they are shipped.
//!
//! | module | job |
//! |---|---|
//! | [`arguments`] | what is asked for |
//! | [`run`] | the phases in their order, the audit, the report |
//! | [`system`], [`shop`] | a system of its own, a catalogue with stock |
//! | [`client`], [`watch`], [`journal`] | placing orders, seeing them end, remembering both |
//! | [`phases`] | one order alone; a closed loop; an open loop |
//! | [`costs`] with [`statements`], [`wire`], [`wal`]; [`tuples`], [`cpu`] | what an order costs |
//! | [`hops`] | where its time goes |
//! | [`pgbench`] | the peer: the same SQL sent by nothing else |
//! | [`audit`], [`topics`], [`tally`] | whether all of it is true: else there is no figure |
//! | [`report`], [`table`], [`findings`] | figures for programs and for people |

pub mod arguments;
pub mod audit;
pub mod client;
pub mod costs;
pub mod cpu;
pub mod findings;
pub mod hops;
pub mod journal;
pub mod pgbench;
pub mod phases;
pub mod report;
pub mod run;
pub mod shop;
pub mod statements;
pub mod system;
pub mod table;
pub mod tally;
pub mod topics;
pub mod tuples;
pub mod wal;
pub mod watch;
pub mod wire;

/// One line of progress on standard error: standard output is the report's.
pub fn progress(text: &str) {
    use std::io::Write as _;
    // Nobody reads it any more: the report still counts.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
