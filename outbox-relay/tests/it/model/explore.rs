//! Breadth first through every state, each visited once.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::relay::{Fault, Whole};
use super::world::World;

/// More states than this and a world is too large: the exploration says so instead of filling the memory.
/// Sixteen bytes each, half a GiB in all.
const STATES_MAX: usize = 32_000_000;
/// When more states than this wait, the newest is taken first, which lets their number fall: a GiB at most.
const WAITING_MAX: usize = 400_000;
/// How often a long exploration says how far it is, in states.
const NEWS_STATES: usize = 1_000_000;

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

/// Two databases, each with its relay, in one process: a step of the whole is a step of either.
pub(super) fn explore_two(worlds: [World; 2], piece_rows: usize, fault: Fault) -> Outcome {
    let first = worlds.map(|world| Arc::new(Whole::new(world)));
    let steps = |both: &[Arc<Whole>; 2]| {
        let mut next = Vec::new();
        for place in 0..2 {
            for whole in both[place].steps(piece_rows, fault)? {
                let mut other = both.clone();
                other[place] = Arc::new(whole);
                next.push(other);
            }
        }
        Ok(next)
    };
    walk(first, steps, |both| both.iter().try_for_each(|whole| whole.world.complete()))
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
    let mut waiting = VecDeque::from([first]);
    let (mut finals, mut visited) = (0, 0);
    let mut violation = None;
    while violation.is_none() {
        let next = if waiting.len() > WAITING_MAX { waiting.pop_back() } else { waiting.pop_front() };
        let Some(state) = next else { break };
        match steps(&state) {
            Err(broken) => violation = Some(broken),
            Ok(next) if next.is_empty() => {
                finals += 1;
                violation = complete(&state).err();
            }
            Ok(next) => waiting.extend(next.into_iter().filter(|state| seen.insert(hasher.hash_one(state)))),
        }
        visited += 1;
        if visited % NEWS_STATES == 0 {
            say!("... {visited} states visited, {} wait", waiting.len());
        }
        assert!(seen.len() <= STATES_MAX, "more than {STATES_MAX} states");
    }
    Outcome { states: seen.len(), finals, violation }
}
