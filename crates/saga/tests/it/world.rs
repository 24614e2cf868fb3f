//! The engine among its participants: every command and reply late, lost, repeated and out of order. At the end either all
//! steps stand or none does; and without tombstones the same exploration finds the leak.

use std::collections::HashSet;

use waybill_saga::engine::{self, Transition};
use waybill_saga::{Definition, Effect, Ending, Input, Outcome, Phase, State};

use crate::sagas::{PIVOT, Parcel, STEPS, with_local_pivot, with_remote_pivot};

/// What a participant has in its table for this saga's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    None,
    Acted,
    Refused,
    /// Failed for good.
    Failed,
    /// Taken back after the act.
    TakenBack,
    /// Taken back before the act came: the act does nothing when it comes.
    Tombstone,
}

/// Everything outside the engine. What was sent stays: it can come late and again, or never (lost).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    state: State,
    rows: [Row; 5],
    commands: Vec<(usize, Phase)>,
    replies: Vec<(usize, Phase, Word)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Word {
    Done,
    Refused,
    Failed,
}

impl Word {
    fn outcome(self) -> Outcome {
        match self {
            Self::Done => Outcome::Done,
            Self::Refused => Outcome::Refused { reason: "refused".to_owned() },
            Self::Failed => Outcome::Failed { reason: "failed".to_owned() },
        }
    }
}

impl World {
    /// Takes the engine's answer: the new state, its commands on their way.
    fn apply(&self, after: &Transition) -> Self {
        let mut next = self.clone();
        next.state = after.state.clone();
        for effect in &after.effects {
            match effect {
                Effect::Command { step, phase, .. } => next.send((place(step), *phase)),
                Effect::Local { step } => next.rows[place(step)] = Row::Acted,
                _ => {}
            }
        }
        next
    }

    fn send(&mut self, command: (usize, Phase)) {
        if !self.commands.contains(&command) {
            self.commands.push(command);
            self.commands.sort_unstable();
        }
    }

    fn answer(&self, row: Row, place: usize, phase: Phase, word: Word) -> Self {
        let mut next = self.clone();
        next.rows[place] = row;
        if !next.replies.contains(&(place, phase, word)) {
            next.replies.push((place, phase, word));
            next.replies.sort_unstable();
        }
        next
    }

    /// What the participant of `place` may do when a command comes, for the first or the tenth time.
    fn deliver(&self, place: usize, phase: Phase, tombstones: bool) -> Vec<Self> {
        let say = |row, word| self.answer(row, place, phase, word);
        let row = self.rows[place];
        if phase == Phase::Compensate {
            let taken_back = match row {
                Row::Acted => Row::TakenBack,
                Row::None if tombstones => Row::Tombstone,
                same => same,
            };
            return vec![say(taken_back, Word::Done), say(row, Word::Failed)];
        }
        match row {
            Row::None if place <= PIVOT => vec![
                say(Row::Acted, Word::Done),
                say(Row::Refused, Word::Refused),
                say(Row::Failed, Word::Failed),
            ],
            Row::None => vec![say(Row::Acted, Word::Done), say(Row::None, Word::Failed)],
            Row::Acted | Row::TakenBack => vec![say(row, Word::Done)],
            Row::Refused | Row::Tombstone => vec![say(row, Word::Refused)],
            Row::Failed => vec![say(row, Word::Failed)],
        }
    }

    /// What is wrong here, if anything.
    fn fault(&self) -> Option<String> {
        let compensating = matches!(self.state, State::Compensating { .. } | State::StuckCompensating { .. });
        if compensating && self.rows[PIVOT] == Row::Acted {
            return Some(format!("turned round after the pivot: {self:?}"));
        }
        match &self.state {
            State::Ended(Ending::Completed) if self.rows != [Row::Acted; 5] => {
                Some(format!("completed, but not every step stands: {self:?}"))
            }
            State::Ended(Ending::Compensated { .. }) if self.rows.contains(&Row::Acted) => {
                Some(format!("compensated, but a step stands: {self:?}"))
            }
            _ => None,
        }
    }

    fn next(&self, definition: &Definition<Parcel>, tombstones: bool) -> Vec<Self> {
        let mut next = Vec::new();
        for (place, phase) in &self.commands {
            next.extend(self.deliver(*place, *phase, tombstones));
        }
        let mut inputs = vec![Input::Deadline, Input::Cancel { reason: "cancelled".to_owned() }];
        inputs.extend(self.replies.iter().map(|(place, phase, word)| Input::Reply {
            step: STEPS[*place],
            phase: *phase,
            outcome: word.outcome(),
        }));
        for input in inputs {
            let after = engine::step(definition, &self.state, &input).expect("a state of this definition");
            if after.ignored.is_none() {
                next.push(self.apply(&after));
            }
        }
        next
    }
}

fn place(step: &str) -> usize {
    STEPS.iter().position(|name| *name == step).expect("a step of this saga")
}

/// Visits every world; returns how many there are, or the first fault met.
fn explore(definition: &Definition<Parcel>, tombstones: bool) -> Result<usize, String> {
    let begun = engine::start(definition);
    let empty = World { state: begun.state.clone(), rows: [Row::None; 5], commands: vec![], replies: vec![] };
    let mut open = vec![empty.apply(&begun)];
    let mut seen = HashSet::new();
    while let Some(world) = open.pop() {
        if seen.contains(&world) {
            continue;
        }
        if let Some(fault) = world.fault() {
            return Err(fault);
        }
        open.extend(world.next(definition, tombstones));
        seen.insert(world);
    }
    Ok(seen.len())
}

#[test]
fn all_steps_stand_or_none_does() {
    for (name, definition) in [("local", with_local_pivot()), ("remote", with_remote_pivot())] {
        let worlds = explore(&definition, true).unwrap_or_else(|fault| panic!("{name} pivot: {fault}"));
        println!("{name} pivot: {worlds} worlds, all sound");
    }
}

#[test]
fn without_tombstones_the_exploration_finds_the_leak() {
    let fault = explore(&with_local_pivot(), false).expect_err("a late act must leak");
    assert!(fault.contains("a step stands"), "{fault}");
}
