//! What an operator can look at and change: the functions behind the operator API, each change with its audit row.
//!
//! | module | job |
//! |---|---|
//! | [`dead_letters`] | list, failure groups, show, plan, edit (a patch beside the original), discard |
//! | [`dry_run`] | the real handler in a transaction that is rolled back: what it would write and say |
//! | [`replays`] | dead letters sent again as an operation: ramp, rate, stop at failures, order per key, resumable |
//! | [`parked`] | parked keys and what is held behind them |
//! | [`facts`] | what this database knows of one story |
//! | [`audit`] | who changed what, why, and what came of it |
//! | [`retention`] | what was settled long ago is forgotten |
//!
//! Everything is bounded: lists by [`PageRequest`], selections by constants that say why.

pub mod audit;
pub mod dead_letters;
pub mod dry_run;
mod error;
pub mod facts;
mod filter;
mod key;
mod page;
pub mod parked;
pub mod replays;
pub mod retention;

pub use self::audit::Change;
pub use self::error::{OperateError, Reason};
pub use self::filter::{Filter, StateFilter};
pub use self::key::{KEY_BASE64_PREFIX, key_read};
pub(crate) use self::key::{base64_read, key_shown};
pub use self::page::{LIMIT_DEFAULT, LIMIT_MAX, Page, PageRequest};
