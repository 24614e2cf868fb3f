//! Sagas of any shape under any inputs in any order: the engine never leaves its promises, and time alone ends every saga.

use std::time::Duration;

use proptest::prelude::*;
use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Draft;
use waybill_saga::engine::{self, Transition};
use waybill_saga::{Act, Compensation, Definition, Effect, Input, Outcome, Phase, State, Status, Step, Verb};

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const COMPENSATABLE_COUNT_MAX: usize = 3;
const RETRIABLE_COUNT_MAX: usize = 3;
const INPUTS_COUNT_MAX: usize = 60;

/// Whether a step (or compensation) is a command, and how often it may be sent.
type Shape = (bool, u32);

#[derive(Debug, Clone)]
struct Table {
    compensatable: Vec<(Shape, Shape)>,
    pivot: Option<Shape>,
    retriable: Vec<Shape>,
}

fn act(command: bool) -> Act<()> {
    fn draft((): &()) -> Result<Draft, CodecError> {
        Ok(Draft { topic: "t", key: String::new(), kind: "K", payload: Vec::new() })
    }
    if command { Act::Command(draft) } else { Act::Local }
}

fn build(table: &Table) -> Definition<()> {
    let deadline = Duration::from_secs(1);
    let mut names = NAMES.into_iter();
    let mut step = |(command, attempts_max): Shape| Step {
        name: names.next().expect("names for all steps"),
        act: act(command),
        deadline,
        attempts_max,
    };
    let mut before = Definition::named("any", 1);
    for (forth, (command, attempts_max)) in &table.compensatable {
        let back = Compensation { act: act(*command), deadline, attempts_max: *attempts_max };
        before = before.compensatable(step(*forth), back);
    }
    let mut after = match table.pivot {
        Some(pivot) => before.pivot(step(pivot)),
        None => before.without_pivot(),
    };
    for shape in &table.retriable {
        after = after.retriable(step(*shape));
    }
    after.build()
}

fn tables() -> impl Strategy<Value = Table> {
    let shape = || (any::<bool>(), 1_u32..4);
    (
        prop::collection::vec((shape(), shape()), 0..=COMPENSATABLE_COUNT_MAX),
        prop::option::of(shape()),
        prop::collection::vec(shape(), 0..=RETRIABLE_COUNT_MAX),
    )
        .prop_map(|(compensatable, pivot, retriable)| Table { compensatable, pivot, retriable })
}

fn inputs() -> impl Strategy<Value = Input> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Done),
        1 => Just(Outcome::Refused { reason: "refused".to_owned() }),
        1 => Just(Outcome::Failed { reason: "failed".to_owned() }),
    ];
    let phase = prop_oneof![2 => Just(Phase::Act), 1 => Just(Phase::Compensate)];
    let verb = prop_oneof![Just(Verb::Retry), Just(Verb::Skip), Just(Verb::Abandon)];
    prop_oneof![
        12 => (0..NAMES.len(), phase, outcome)
            .prop_map(|(place, phase, outcome)| Input::Reply { step: NAMES[place], phase, outcome }),
        2 => Just(Input::Deadline),
        1 => Just(Input::SagaDeadline),
        1 => Just(Input::Cancel { reason: "cancelled".to_owned() }),
        1 => verb.prop_map(Input::Operator),
    ]
}

/// A run of one saga, with what the promises are about.
struct Run<'a> {
    definition: &'a Definition<()>,
    table: &'a Table,
    state: State,
    /// A step that can not be taken back is done.
    decided: bool,
    compensations_sent: Vec<&'static str>,
}

impl Run<'_> {
    fn take(&mut self, input: &Input) {
        let after = engine::step(self.definition, &self.state, input).expect("a state of this definition");
        if let Input::Reply { step, phase: Phase::Act, outcome: Outcome::Done } = input {
            self.decided |= after.ignored.is_none() && self.is_past_compensatable(step);
        }
        self.observe(&after);
        self.state = after.state;
    }

    fn is_past_compensatable(&self, step: &str) -> bool {
        NAMES.iter().position(|name| *name == step).expect("a known name") >= self.table.compensatable.len()
    }

    fn observe(&mut self, after: &Transition) {
        for effect in &after.effects {
            match effect {
                Effect::Local { step } => self.decided |= self.is_past_compensatable(step),
                Effect::Command { step, phase: Phase::Compensate, attempt: 1 }
                | Effect::LocalCompensation { step } => {
                    assert!(!self.decided, "{step} is taken back after the pivot");
                    if !matches!(self.state, State::StuckCompensating { .. }) {
                        assert!(!self.compensations_sent.contains(step), "{step} is taken back twice");
                    }
                    self.compensations_sent.push(step);
                }
                Effect::Finished(_) => assert!(after.state.status().is_ended()),
                Effect::Stuck { .. } => assert_eq!(after.state.status(), Status::Stuck),
                _ => {}
            }
        }
        let json = serde_json::to_string(&after.state).expect("a state is JSON");
        let back: State = serde_json::from_str(&json).expect("and back");
        assert_eq!(back, after.state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_saga_under_any_inputs(table in tables(), inputs in prop::collection::vec(inputs(), 0..INPUTS_COUNT_MAX)) {
        let definition = build(&table);
        let begun = engine::start(&definition);
        let mut run = Run {
            definition: &definition, table: &table, state: begun.state.clone(), decided: false, compensations_sent: vec![],
        };
        run.observe(&begun);
        for input in &inputs {
            run.take(input);
        }
        // Now nobody answers any more: the deadlines alone bring it to an end, within all attempts of all steps.
        let sends_max = 7 * 2 * 4 * 2;
        for _ in 0..sends_max {
            if matches!(run.state.status(), Status::Running | Status::Compensating) {
                run.take(&Input::Deadline);
            }
        }
        prop_assert!(!matches!(run.state.status(), Status::Running | Status::Compensating), "still {:?}", run.state);
    }
}
