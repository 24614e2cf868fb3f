//! The sharing of databases explored: two and three relays, every division to begin with, every order of looks, takes and
//! hand-overs, what is shown as old as it may be. Every run ends, with nobody two apart; without the rest it does not.

use std::collections::HashMap;

use outbox_relay::core::share::{Share, goes_before};

/// More states than this and the world is too large.
const STATES_MAX: usize = 2_000_000;
/// Windows that a relay rests: a window is a time in which everybody who waits has asked once. The program rests four, of
/// which the first and the last are not whole.
const REST_WINDOWS: u8 = 2;

/// What became of the database that a relay gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Given {
    Nothing,
    /// Decided; what is on its way is waited for.
    Draining,
    /// Nobody has it, since so many windows' ends.
    Free(u8),
    /// Another has it; the giver has not asked since.
    Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Relay {
    share: Share,
    given: Given,
    rest: u8,
    /// What it held in this window: any of it may still be shown.
    shown: (usize, usize),
}

impl Relay {
    fn holding(databases: usize) -> Self {
        let mut share = Share::default();
        (0..databases).for_each(|_| share.took());
        Self { share, given: Given::Nothing, rest: 0, shown: (databases, databases) }
    }

    fn show(&mut self) {
        let held = self.share.held();
        self.shown = (self.shown.0.min(held), self.shown.1.max(held));
    }

    fn settle(&mut self) {
        self.share.settled();
        (self.given, self.rest) = (Given::Nothing, REST_WINDOWS);
    }
}

/// Databases are alike, and so are relays: only how many each holds counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    relays: Vec<Relay>,
    /// Databases free from the beginning, or whose holder died: since the present window, and since the one before.
    free: [usize; 2],
}

/// A step, and whether a database goes from hand to hand in it.
type Step = (State, bool);

impl State {
    fn sorted(mut self) -> Self {
        self.relays.sort_unstable();
        self
    }

    fn steps(&self, rests: bool) -> Vec<Step> {
        let mut next = Vec::new();
        for place in 0..self.relays.len() {
            self.look(place, &mut next);
            self.go_on(place, rests, &mut next);
            self.take(place, &mut next);
        }
        next.extend(self.window_ends().map(|state| (state, false)));
        next.into_iter().map(|(state, moves)| (state.sorted(), moves)).collect()
    }

    /// A holder renews, and sees those who wait.
    fn look(&self, place: usize, next: &mut Vec<Step>) {
        if self.relays[place].share.held() == 0 {
            return;
        }
        let others = || self.others(place).map(|other| other.shown);
        let (lowest, highest) = (others().map(|shown| shown.0).min(), others().map(|shown| shown.1).min());
        let (Some(lowest), Some(highest)) = (lowest, highest) else { return };
        for fewest in lowest..=highest {
            let mut state = self.clone();
            let relay = &mut state.relays[place];
            if relay.share.gives(fewest) {
                relay.given = Given::Draining;
                next.push((state, true));
            }
        }
    }

    /// What was decided is done, or seen to be done by another.
    fn go_on(&self, place: usize, rests: bool, next: &mut Vec<Step>) {
        let mut state = self.clone();
        let relay = &mut state.relays[place];
        match relay.given {
            Given::Draining => {
                relay.share.lost();
                relay.show();
                relay.given = Given::Free(0);
            }
            Given::Taken => {
                relay.settle();
                if !rests {
                    relay.rest = 0;
                    relay.share.rested();
                }
            }
            Given::Nothing | Given::Free(_) => return,
        }
        next.push((state, false));
    }

    /// Whoever waits takes a free one, unless it sees one who goes before it.
    fn take(&self, place: usize, next: &mut Vec<Step>) {
        let own = self.relays[place].share.held();
        if self.others(place).any(|other| goes_before(other.shown.1, own)) {
            return;
        }
        let taken_from = |state: &mut State| {
            state.relays[place].share.took();
            state.relays[place].show();
        };
        for age in 0..2 {
            if self.free[age] > 0 {
                let mut state = self.clone();
                state.free[age] -= 1;
                taken_from(&mut state);
                next.push((state, true));
            }
        }
        for giver in 0..self.relays.len() {
            if matches!(self.relays[giver].given, Given::Free(_)) {
                let mut state = self.clone();
                taken_from(&mut state);
                if giver == place {
                    state.relays[giver].settle();
                } else {
                    state.relays[giver].given = Given::Taken;
                }
                next.push((state, true));
            }
        }
    }

    /// Everybody who waits has asked: what is shown is what is, and nothing is free that somebody may take.
    fn window_ends(&self) -> Option<Self> {
        let left = self.relays.iter().any(|relay| relay.given == Given::Free(1));
        if self.free[1] > 0 || left {
            return None;
        }
        let mut state = self.clone();
        state.free = [0, state.free[0]];
        for relay in &mut state.relays {
            relay.shown = (relay.share.held(), relay.share.held());
            if relay.given == Given::Free(0) {
                relay.given = Given::Free(1);
            }
            if relay.rest == 1 {
                relay.share.rested();
            }
            relay.rest = relay.rest.saturating_sub(1);
        }
        Some(state)
    }

    fn others(&self, place: usize) -> impl Iterator<Item = &Relay> {
        self.relays.iter().enumerate().filter(move |(other, _)| *other != place).map(|(_, relay)| relay)
    }

    fn is_balanced(&self) -> bool {
        let held = || self.relays.iter().map(|relay| relay.share.held());
        let apart = held().max().unwrap_or_default() - held().min().unwrap_or_default();
        apart <= 1 && self.free == [0, 0] && self.relays.iter().all(|relay| relay.given == Given::Nothing)
    }
}

/// Every division of so many databases over relays and nobody.
fn divisions(relays: usize, databases: usize) -> Vec<State> {
    let mut states = vec![(Vec::new(), databases)];
    for _ in 0..relays {
        states = states
            .into_iter()
            .flat_map(|(held, left): (Vec<usize>, usize)| {
                (0..=left).map(move |more| ([held.clone(), vec![more]].concat(), left - more))
            })
            .collect();
    }
    states
        .into_iter()
        .map(|(held, left)| {
            let relays = held.into_iter().map(Relay::holding).collect();
            State { relays, free: [left, 0] }.sorted()
        })
        .collect()
}

/// All states, and for each its steps.
struct Graph {
    states: Vec<State>,
    steps: Vec<Vec<(usize, bool)>>,
}

impl Graph {
    fn explore(relays: usize, databases: usize, rests: bool) -> Self {
        let mut graph = Self { states: Vec::new(), steps: Vec::new() };
        let mut places = HashMap::new();
        for first in divisions(relays, databases) {
            graph.place(&mut places, first);
        }
        while graph.steps.len() < graph.states.len() {
            let steps = graph.states[graph.steps.len()].steps(rests);
            let steps = steps.into_iter().map(|(state, moves)| (graph.place(&mut places, state), moves));
            let steps = steps.collect();
            graph.steps.push(steps);
            assert!(graph.states.len() <= STATES_MAX, "more than {STATES_MAX} states");
        }
        graph
    }

    fn place(&mut self, places: &mut HashMap<State, usize>, state: State) -> usize {
        *places.entry(state).or_insert_with_key(|state| {
            self.states.push(state.clone());
            self.states.len() - 1
        })
    }

    /// The group of states of each state that can be reached from each other (Tarjan's); those reached from a group have
    /// smaller numbers.
    fn groups(&self) -> Vec<usize> {
        const NONE: usize = usize::MAX;
        let count = self.states.len();
        let (mut group, mut index, mut low) = (vec![NONE; count], vec![NONE; count], vec![0; count]);
        let (mut open, mut groups, mut visited) = (Vec::new(), 0, 0);
        for root in 0..count {
            let mut path = if index[root] == NONE { vec![(root, 0)] } else { Vec::new() };
            while let Some((state, step)) = path.last_mut() {
                let state = *state;
                if *step == 0 {
                    (index[state], low[state]) = (visited, visited);
                    visited += 1;
                    open.push(state);
                }
                if let Some((to, _)) = self.steps[state].get(*step) {
                    *step += 1;
                    if index[*to] == NONE {
                        path.push((*to, 0));
                    } else if group[*to] == NONE {
                        low[state] = low[state].min(index[*to]);
                    }
                    continue;
                }
                path.pop();
                if let Some((parent, _)) = path.last() {
                    low[*parent] = low[*parent].min(low[state]);
                }
                if low[state] == index[state] {
                    while let Some(member) = open.pop() {
                        group[member] = groups;
                        if member == state {
                            break;
                        }
                    }
                    groups += 1;
                }
            }
        }
        group
    }

    /// The longest run's moves, or what is wrong.
    fn judge(&self) -> Result<usize, String> {
        let group = self.groups();
        let groups = group.iter().max().map_or(0, |last| last + 1);
        let mut members = vec![Vec::new(); groups];
        for (state, group) in group.iter().enumerate() {
            members[*group].push(state);
        }
        let mut moves_left = vec![0; groups];
        for here in 0..groups {
            let mut is_last = true;
            for state in &members[here] {
                for (to, moves) in &self.steps[*state] {
                    let there = group[*to];
                    if there != here {
                        is_last = false;
                        moves_left[here] = moves_left[here].max(moves_left[there] + usize::from(*moves));
                    } else if *moves {
                        return Err(format!("back and forth for ever: {:?}", self.states[*state]));
                    }
                }
            }
            if let Some(state) =
                members[here].iter().find(|state| is_last && !self.states[**state].is_balanced())
            {
                return Err(format!("ends out of balance: {:?}", self.states[*state]));
            }
        }
        Ok(moves_left.into_iter().max().unwrap_or_default())
    }
}

#[test]
fn every_run_ends_in_balance() {
    for relays in 2..=3 {
        for databases in 1..=5 {
            let graph = Graph::explore(relays, databases, true);
            let judged = graph.judge();
            say!(
                "share: {relays} relays, {databases} databases: {} states, at most {judged:?} gives and takes",
                graph.states.len()
            );
            assert!(judged.is_ok(), "{judged:?}");
        }
    }
}

#[test]
fn without_the_rest_they_hand_back_and_forth() {
    let caught = (1..=5).filter_map(|databases| Graph::explore(2, databases, false).judge().err()).next();
    say!("share without the rest: caught: {caught:?}");
    assert!(caught.is_some());
}
