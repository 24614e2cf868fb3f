//! One story joined: what each service knows of it, where its messages lie on Kafka, what the saga's steps took.
//!
//! Both `waybillctl order explain` and the operators' endpoint `/operator/v1/explain/{correlation_id}` do this; they differ
//! in whom they ask and how ([`Source`]). It only reads. What could not be asked, or not be looked at to its end, is told
//! beside what was found: nothing is silently missing.
//!
//! | module | job |
//! |---|---|
//! | [`Story`] | each service's facts, asked twice: what it said, then when it heard what the others said |
//! | [`Places`] | topic, partition and offset of each message |
//! | `steps` | the saga's steps with attempts and latencies |
//! | `timeline` | everything as entries in their order |
//! | [`Report`] | all of it, as JSON and as text |

mod facts;
mod not_told;
mod places;
mod report;
mod steps;
mod story;
mod text;
mod timeline;

pub use not_told::NotTold;
pub use places::{Limits, NotLooked, Place, Places};
pub use report::{NotAsked, Report};
pub use steps::Step;
pub use story::{Source, Story};
pub use timeline::{Entry, What};
