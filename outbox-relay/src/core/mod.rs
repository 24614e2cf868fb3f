//! What the relay decides, without I/O: what to read, which position may be stored, who may publish.
//!
//! Everything here is explored exhaustively by `tests/it/model`, and it is the code that the program runs.
//!
//! | module | job |
//! |---|---|
//! | [`snapshot`] | Postgres snapshots: which transactions one sees, and how two differ |
//! | [`position`] | how far everything is published and acknowledged |
//! | [`round`] | what to read next |
//! | [`flight`] | what is read but not yet acknowledged, and the position that may be stored |
//! | [`lease`] | when to renew, and when to stop publishing |
//! | [`share`] | when a database is given back for balance, and to whom |

pub mod flight;
pub mod lease;
pub mod position;
pub mod round;
pub mod share;
pub mod snapshot;
