//! The sagas the tests run: two compensatable steps, a pivot, two retriable ones.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Draft;
use waybill_saga::definition::Command;
use waybill_saga::{Compensation, Definition, Input, Outcome, Phase, Step};

/// The data of the tests' sagas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) id: Uuid,
}

/// Step names in order; the third is the pivot.
pub(crate) const STEPS: [&str; 5] = ["one", "two", "pivot", "four", "five"];
/// The place of the pivot in [`STEPS`].
pub(crate) const PIVOT: usize = 2;
/// Every command may be sent this often.
pub(crate) const ATTEMPTS: u32 = 2;
/// Every step's deadline.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

fn draft(parcel: &Parcel, topic: &'static str, kind: &'static str) -> Result<Draft, CodecError> {
    Ok(Draft { topic, key: parcel.id.to_string(), kind, payload: kind.as_bytes().to_vec() })
}

fn step(place: usize) -> Step<Parcel> {
    let commands: [Command<Parcel>; 5] = [
        |p| draft(p, "a.commands", "DoOne"),
        |p| draft(p, "b.commands", "DoTwo"),
        |p| draft(p, "b.commands", "Decide"),
        |p| draft(p, "b.commands", "DoFour"),
        |p| draft(p, "a.commands", "DoFive"),
    ];
    Step::command(STEPS[place], commands[place], DEADLINE, ATTEMPTS)
}

fn take_back_one() -> Compensation<Parcel> {
    Compensation::command(|p| draft(p, "a.commands", "TakeBackOne"), DEADLINE, ATTEMPTS)
}

fn take_back_two() -> Compensation<Parcel> {
    Compensation::command(|p| draft(p, "b.commands", "TakeBackTwo"), DEADLINE, ATTEMPTS)
}

/// The saga with a pivot of the given kind.
pub(crate) fn parcel(pivot: Step<Parcel>) -> Definition<Parcel> {
    Definition::named("parcel", 1)
        .deadline(Duration::from_secs(600))
        .compensatable(step(0), take_back_one())
        .compensatable(step(1), take_back_two())
        .pivot(pivot)
        .retriable(step(3))
        .retriable(step(4))
        .build()
}

/// Its pivot is done at once.
pub(crate) fn with_local_pivot() -> Definition<Parcel> {
    parcel(Step::local(STEPS[PIVOT]))
}

/// Its pivot is a command, whose outcome can be unknown.
pub(crate) fn with_remote_pivot() -> Definition<Parcel> {
    parcel(step(PIVOT))
}

/// A changed saga under the same name: the second step is gone.
pub(crate) fn second_version() -> Definition<Parcel> {
    Definition::named("parcel", 2)
        .compensatable(step(0), take_back_one())
        .pivot(Step::local(STEPS[PIVOT]))
        .retriable(step(4))
        .build()
}

/// Every input that can reach a saga of these steps but an operator's: replies that fit, and all that are late or out of place.
pub(crate) fn all_inputs() -> Vec<Input> {
    let reason = |text: &str| text.to_owned();
    let outcomes = [
        Outcome::Done,
        Outcome::Refused { reason: reason("refused") },
        Outcome::Failed { reason: reason("failed") },
    ];
    let mut inputs =
        vec![Input::Deadline, Input::SagaDeadline, Input::Cancel { reason: reason("cancelled") }];
    for step in STEPS {
        for phase in [Phase::Act, Phase::Compensate] {
            inputs.extend(outcomes.iter().map(|outcome| Input::Reply {
                step,
                phase,
                outcome: outcome.clone(),
            }));
        }
    }
    inputs
}
