//! Every state the engine can reach under any order of inputs: each path ends, and none takes back what is decided.

use std::collections::{HashMap, HashSet};

use waybill_saga::engine::{self, Transition};
use waybill_saga::state::Wait;
use waybill_saga::{Definition, Effect, Ending, Input, Outcome, Phase, State, Status, Verb};

use crate::sagas::{PIVOT, Parcel, STEPS, all_inputs, with_local_pivot, with_remote_pivot};

/// An operator may step in this often on one path; without a bound a retry could follow a retry for ever.
const OPERATOR_VERBS_MAX: u8 = 2;

/// What happened on the way to a state, as far as the promises speak of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Past {
    /// Steps whose act was accepted as done (or skipped).
    done: [bool; 5],
    /// How often each step's compensation was accepted as done (or skipped).
    taken_back: [u8; 5],
    operator_verbs: u8,
}

#[derive(Default)]
struct Seen {
    nodes: HashSet<(State, Past)>,
    transitions: usize,
    ignored: usize,
    endings: HashSet<Status>,
}

fn place(step: &str) -> usize {
    STEPS.iter().position(|name| *name == step).expect("a step of this saga")
}

/// What an accepted input made of the past.
fn remember(past: &Past, before: &State, input: &Input, after: &Transition) -> Past {
    let mut past = past.clone();
    let taken = matches!(input, Input::Reply { outcome: Outcome::Done, .. } | Input::Operator(Verb::Skip));
    if let (Some((step, phase)), true) = (before.at(), taken) {
        match phase {
            Phase::Act => past.done[place(step)] = true,
            Phase::Compensate => past.taken_back[place(step)] += 1,
        }
    }
    for effect in &after.effects {
        if let Effect::Local { step } = effect {
            past.done[place(step)] = true;
        }
    }
    past.operator_verbs += u8::from(matches!(input, Input::Operator(_)));
    past
}

fn check(past: &Past, input: &Input, after: &Transition) {
    let commands: Vec<&Effect> =
        after.effects.iter().filter(|e| matches!(e, Effect::Command { .. })).collect();
    assert!(commands.len() <= 1, "two commands at once: {after:?}");
    if past.done[PIVOT] {
        let back = |e: &Effect| {
            matches!(e, Effect::Command { phase: Phase::Compensate, .. } | Effect::LocalCompensation { .. })
        };
        assert!(!after.effects.iter().any(back), "{input:?} takes back after the pivot: {after:?}");
        assert!(!matches!(after.state, State::Compensating { .. }), "{input:?} turns round after the pivot");
    }
    assert!(past.taken_back.iter().all(|times| *times <= 1), "taken back twice: {past:?}");
    match &after.state {
        State::Ended(Ending::Completed) => assert_eq!(past.done, [true; 5], "completed too early"),
        State::Ended(Ending::Compensated { reason }) => {
            assert!(!past.done[PIVOT] && !reason.is_empty());
            let left = (0..PIVOT).find(|i| past.done[*i] && past.taken_back[*i] == 0);
            assert_eq!(left, None, "a step that is done was not taken back: {past:?}");
        }
        _ => {}
    }
}

/// Whether a saga that waits for an answer no longer does.
fn gives_up(before: &State, after: &State) -> bool {
    let stuck = matches!(after, State::StuckActing { .. } | State::StuckCompensating { .. });
    before != after && (stuck || before.at() != after.at())
}

fn is_last_call(state: &State) -> bool {
    use State::{Acting, Compensating};
    matches!(state, Acting { wait: Wait::LastCall, .. } | Compensating { wait: Wait::LastCall, .. })
}

/// Visits every node reachable by `inputs`; returns them, and the accepted edges that are not an operator's.
fn explore(definition: &Definition<Parcel>, inputs: &[Input]) -> (Seen, HashMap<State, HashSet<State>>) {
    let mut seen = Seen::default();
    let mut edges: HashMap<State, HashSet<State>> = HashMap::new();
    let begun = engine::start(definition).state;
    let past = Past { done: [false; 5], taken_back: [0; 5], operator_verbs: 0 };
    let mut open = vec![(begun, past)];
    while let Some((state, past)) = open.pop() {
        if !seen.nodes.insert((state.clone(), past.clone())) {
            continue;
        }
        let mut ways_on = 0;
        for input in inputs {
            let by_operator = matches!(input, Input::Operator(_));
            if by_operator && past.operator_verbs == OPERATOR_VERBS_MAX {
                continue;
            }
            let after = engine::step(definition, &state, input).expect("a state of this definition");
            seen.transitions += 1;
            if after.ignored.is_some() {
                assert_eq!(
                    (&after.state, after.effects.len()),
                    (&state, 0),
                    "ignored, yet something changed"
                );
                seen.ignored += 1;
                continue;
            }
            let past = remember(&past, &state, input, &after);
            check(&past, input, &after);
            if matches!(input, Input::Deadline | Input::SagaDeadline) && gives_up(&state, &after.state) {
                assert!(is_last_call(&state), "{input:?} gives up without a last call: {state:?}");
            }
            if after.state != state && !by_operator {
                edges.entry(state.clone()).or_default().insert(after.state.clone());
            }
            ways_on += usize::from(*input == Input::Deadline);
            open.push((after.state, past));
        }
        match state.status() {
            Status::Running | Status::Compensating => assert_eq!(ways_on, 1, "time does not move {state:?}"),
            ended_or_stuck => {
                assert_eq!(ways_on, 0, "a deadline moves {state:?}");
                seen.endings.insert(ended_or_stuck);
            }
        }
    }
    (seen, edges)
}

/// How many paths lead from `state` to an end; panics when a path returns to where it was.
fn paths(
    state: &State,
    edges: &HashMap<State, HashSet<State>>,
    on_path: &mut HashSet<State>,
    known: &mut HashMap<State, u64>,
) -> u64 {
    if let Some(count) = known.get(state) {
        return *count;
    }
    assert!(on_path.insert(state.clone()), "a path goes in a circle through {state:?}");
    let count = match edges.get(state) {
        Some(next) => next.iter().map(|state| paths(state, edges, on_path, known)).sum(),
        None => 1,
    };
    on_path.remove(state);
    known.insert(state.clone(), count);
    count
}

fn explore_and_print(name: &str, definition: &Definition<Parcel>) {
    let mut inputs = all_inputs();
    let (seen, edges) = explore(definition, &inputs);
    let begun = engine::start(definition).state;
    let count = paths(&begun, &edges, &mut HashSet::new(), &mut HashMap::new());
    let states: HashSet<&State> = seen.nodes.iter().map(|(state, _)| state).collect();
    println!(
        "{name}: {} states ({} with their past), {} transitions tried, {} ignored, {count} paths, none goes in a circle",
        states.len(),
        seen.nodes.len(),
        seen.transitions,
        seen.ignored
    );
    let all = [Status::Completed, Status::Compensated, Status::Stuck];
    assert_eq!(seen.endings, HashSet::from(all), "not every kind of end is reached");

    inputs.extend([Verb::Retry, Verb::Skip, Verb::Abandon].map(Input::Operator));
    let (seen, _) = explore(definition, &inputs);
    println!("{name}, with an operator: {} nodes, {} transitions tried", seen.nodes.len(), seen.transitions);
    assert!(seen.endings.contains(&Status::Abandoned));
}

#[test]
fn every_path_ends_and_none_compensates_after_the_pivot() {
    explore_and_print("local pivot", &with_local_pivot());
    explore_and_print("remote pivot", &with_remote_pivot());
}
