//! What a process tells of itself: log lines, metrics, and the trace context that ties them together.
//!
//! | module | job |
//! |---|---|
//! | [`trace`] | W3C trace context: parse, make, continue |
//! | [`logs`] | one JSON object a line (or a readable form), trace and correlation ids on every line of a span |
//! | [`story`] | the ids of lines about one message among many |
//! | [`metrics`] | one registry, metrics made once by name, rendered for Prometheus |

mod log_line;
pub mod logs;
pub mod metrics;
mod process;
pub mod story;
pub mod trace;
