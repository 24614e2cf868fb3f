//! Breadth first through every state, each visited once.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use super::relay::{Fault, Whole};
use super::world::World;

/// More states than this and a world is too large: the exploration says so instead of filling the memory.
const STATES_MAX: usize = 40_000_000;

/// What an exploration saw.
pub(super) struct Outcome {
    pub(super) states: usize,
    /// States from which nothing can happen any more.
    pub(super) finals: usize,
    pub(super) violation: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} final, ", self.states, self.finals)?;
        match &self.violation {
            None => f.write_str("all promises kept"),
            Some(violation) => write!(f, "caught: {violation}"),
        }
    }
}

pub(super) fn explore(world: World, piece_rows: usize, fault: Fault) -> Outcome {
    walk(Whole::new(world), |whole| whole.steps(piece_rows, fault), |whole| whole.world.complete())
}

/// Visited states are remembered by a 64-bit hash with a random seed: with a million states the chance that two share
/// one is three in a hundred million, and another at the next run.
pub(super) fn walk<S: Clone + std::hash::Hash + Eq>(
    first: S,
    steps: impl Fn(&S) -> Result<Vec<S>, String>,
    complete: impl Fn(&S) -> Result<(), String>,
) -> Outcome {
    let hasher = RandomState::new();
    let mut seen = HashSet::from([hasher.hash_one(&first)]);
    let mut queue = VecDeque::from([first]);
    let mut finals = 0;
    let mut violation = None;
    while let (Some(state), None) = (queue.pop_front(), &violation) {
        match steps(&state) {
            Err(broken) => violation = Some(broken),
            Ok(next) if next.is_empty() => {
                finals += 1;
                violation = complete(&state).err();
            }
            Ok(next) => queue.extend(next.into_iter().filter(|state| seen.insert(hasher.hash_one(state)))),
        }
        assert!(seen.len() <= STATES_MAX, "more than {STATES_MAX} states");
    }
    Outcome { states: seen.len(), finals, violation }
}
