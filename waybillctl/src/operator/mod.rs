//! The services' operator API, as this program calls it: who is asked, what is asked, what is answered.
//!
//! Types of its own: fields this program does not know are kept for `--json` and otherwise passed over, so that services
//! may be newer.

pub(crate) mod answers;
mod service;
mod services;

pub(crate) use service::{Listed, Service};
pub(crate) use services::{Found, Services, view};
