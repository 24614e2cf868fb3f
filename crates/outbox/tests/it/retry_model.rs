//! Ordered retry explored exhaustively, breadth first: one key, one group, the production rules, every interleaving.
//!
//! The relay publishes in order and may repeat what it has not recorded; a consumer may crash between its commit and its
//! offset; the main topic may repeat its end; the handler answers as it likes within a budget; the operator replays or
//! discards. In every state: effects in the key's order, none twice. In every final state: nothing lost, nothing parked.
//! Where dead letters are skipped, theirs may come at any time, and the others' are in order all the same.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use waybill_outbox::retry::decide::{self, Admission, Goes, Judgement, Refusal, Source, Tried};
use waybill_outbox::retry::{KeyState, Poisoned, Policy};

/// A fault put into the rules, to see that the exploration would notice.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    /// Repeats are not dropped.
    NoInbox,
    /// Followers of a parked key are handled.
    NoPark,
    /// A replay does not count as an appearance.
    NoHop,
    /// All held messages are let go at once when the head is done.
    ReleaseAll,
    /// A draining key counts as not parked.
    NoHeldCheck,
    /// A key is unparked before its held messages are drained.
    UnparkFirst,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Rec {
    message: u8,
    hop: i16,
    attempts: u16,
}

/// How often each of these may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    retries: u8,
    rejects: u8,
    crashes: u8,
    repeats: u8,
    discards: u8,
}

/// What one transaction of the group may change.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Data {
    /// Appended since the relay's stored position: tier and record.
    outbox: Vec<(usize, Rec)>,
    inbox: BTreeSet<(u8, i16)>,
    key: Option<KeyState>,
    held: VecDeque<Rec>,
    letters: Vec<Rec>,
    /// Messages that a key went on without: the order is given up for them.
    skipped: BTreeSet<u8>,
    /// Message numbers; negative when given up.
    effects: Vec<i8>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// Topic 0 is the main one, the others are the tiers: what is not consumed yet.
    topics: Vec<VecDeque<Rec>>,
    published: usize,
    data: Data,
    /// The last records consumed from the main topic.
    seen: Vec<Rec>,
    budget: Budget,
}

struct World {
    messages: u8,
    policy: Policy,
    fault: Fault,
}

impl World {
    fn new(messages: u8, tiers: usize, poisoned: Poisoned, fault: Fault) -> Self {
        let policy = Policy { poisoned, ..Policy::with_delays(&vec![Duration::from_secs(1); tiers]) };
        Self { messages, policy, fault }
    }

    fn first(&self, budget: Budget) -> State {
        let mut topics = vec![VecDeque::new(); usize::from(self.policy.tiers()) + 1];
        topics[0] = (1..=self.messages).map(|message| Rec { message, hop: 0, attempts: 0 }).collect();
        let data = Data {
            outbox: vec![],
            inbox: BTreeSet::new(),
            key: None,
            held: VecDeque::new(),
            letters: vec![],
            skipped: BTreeSet::new(),
            effects: vec![],
        };
        State { topics, published: 0, data, seen: vec![], budget }
    }

    fn next(&self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        relay(state, &mut next);
        if state.budget.repeats > 0 {
            for count in 1..=state.seen.len() {
                let mut more = state.clone();
                more.budget.repeats -= 1;
                for rec in state.seen[state.seen.len() - count..].iter().rev() {
                    more.topics[0].push_front(*rec);
                }
                next.push(more);
            }
        }
        for topic in 0..state.topics.len() {
            if let Some(rec) = state.topics[topic].front().copied() {
                self.consume(state, topic, rec, &mut next);
            }
        }
        self.drain(state, &mut next);
        self.operate(state, &mut next);
        next
    }

    fn consume(&self, state: &State, topic: usize, rec: Rec, next: &mut Vec<State>) {
        for (data, budget) in self.transactions(state, topic, rec) {
            if data != state.data && state.budget.crashes > 0 {
                // Committed, but the offset is not: the record comes again.
                let mut crashed = State { data: data.clone(), budget, ..state.clone() };
                crashed.budget.crashes -= 1;
                next.push(crashed);
            }
            let mut done = State { data, budget, ..state.clone() };
            done.topics[topic].pop_front();
            if topic == 0 {
                done.seen.push(rec);
                let from = done.seen.len().saturating_sub(2);
                done.seen.drain(..from);
            }
            next.push(done);
        }
    }

    fn transactions(&self, state: &State, topic: usize, rec: Rec) -> Vec<(Data, Budget)> {
        let mut data = state.data.clone();
        let fresh = data.inbox.insert((rec.message, rec.hop));
        if !fresh && self.fault != Fault::NoInbox {
            return vec![(data, state.budget)];
        }
        let source = if topic == 0 {
            Source::Main
        } else {
            assert!(
                matches!(data.key, Some(KeyState::Retrying { .. })),
                "a retry record, but its key is {:?}",
                data.key
            );
            Source::Head { tier: u8::try_from(topic).unwrap() }
        };
        let overlooked = self.fault == Fault::NoHeldCheck && data.key == Some(KeyState::Draining);
        if decide::admit(source, data.key) == Admission::Handle || overlooked {
            let before = data.key;
            let mut outcomes = self.judgements(data, source, rec, state.budget);
            if overlooked {
                outcomes.iter_mut().filter(|(d, _)| d.key.is_none()).for_each(|(d, _)| d.key = before);
            }
            if self.fault == Fault::ReleaseAll && topic > 0 {
                outcomes.iter_mut().filter(|(d, _)| d.key == Some(KeyState::Draining)).for_each(|(d, _)| {
                    d.key = None;
                    let all = d.held.drain(..).rev().map(effect);
                    d.effects.extend(all);
                });
            }
            return outcomes;
        }
        if self.fault == Fault::NoPark {
            data.effects.push(effect(rec));
        } else {
            data.held.push_back(rec);
        }
        vec![(data, state.budget)]
    }

    /// Everything the handler may say of an admitted record.
    fn judgements(&self, data: Data, source: Source, rec: Rec, budget: Budget) -> Vec<(Data, Budget)> {
        let mut outcomes = vec![(Judgement::Done, budget)];
        if budget.retries > 0 {
            outcomes.push((Judgement::Retry, Budget { retries: budget.retries - 1, ..budget }));
        }
        if budget.rejects > 0 {
            outcomes.push((Judgement::Reject, Budget { rejects: budget.rejects - 1, ..budget }));
        }
        let tried = Tried { attempts: rec.attempts + 1, hop: rec.hop };
        let after = |(judgement, budget)| {
            let decision = decide::judge(&self.policy, source, tried, judgement);
            let mut data = data.clone();
            data.key = decision.key;
            match decision.record {
                Goes::Nowhere => data.effects.push(effect(rec)),
                Goes::Retry { tier, hop } => {
                    data.outbox.push((usize::from(tier), Rec { hop, attempts: tried.attempts, ..rec }));
                }
                Goes::DeadLetter => {
                    data.letters.push(Rec { attempts: 0, ..rec });
                    if data.key != Some(KeyState::Blocked) {
                        data.skipped.insert(rec.message);
                    }
                }
            }
            (data, budget)
        };
        outcomes.into_iter().map(after).collect()
    }

    fn drain(&self, state: &State, next: &mut Vec<State>) {
        if decide::admit(Source::Held, state.data.key) != Admission::Handle || state.data.key.is_none() {
            return;
        }
        let mut data = state.data.clone();
        if let Some(rec) = data.held.pop_front() {
            for (data, budget) in self.judgements(data, Source::Held, rec, state.budget) {
                next.push(State { data, budget, ..state.clone() });
            }
        }
        let left = if self.fault == Fault::UnparkFirst { 0 } else { state.data.held.len() as u64 };
        if decide::drained(left).is_none() {
            let mut done = state.clone();
            done.data.key = None;
            next.push(done);
        }
    }

    fn operate(&self, state: &State, next: &mut Vec<State>) {
        let blocks = state.data.key == Some(KeyState::Blocked);
        assert!(state.data.letters.len() == 1 || !blocks, "one letter blocks the key");
        for (place, rec) in state.data.letters.iter().copied().enumerate() {
            match decide::replay(&self.policy, state.data.key, blocks, rec.hop) {
                Ok(decision) => {
                    let Goes::Retry { tier, hop } = decision.record else { panic!("a replay travels") };
                    let hop = if self.fault == Fault::NoHop { rec.hop } else { hop };
                    let mut replayed = state.clone();
                    replayed.data.letters.remove(place);
                    replayed.data.key = decision.key;
                    let again = Rec { hop, attempts: decide::ATTEMPTS_AT_REPLAY, ..rec };
                    replayed.data.outbox.push((usize::from(tier), again));
                    next.push(replayed);
                }
                // Later.
                Err(why) => assert!(why == Refusal::KeyBusy && !blocks, "{why}"),
            }
            if state.budget.discards > 0 {
                let mut discarded = state.clone();
                discarded.budget.discards -= 1;
                discarded.data.letters.remove(place);
                discarded.data.key = decide::discard(state.data.key, blocks);
                discarded.data.effects.push(-effect(rec));
                next.push(discarded);
            }
        }
    }

    fn check(&self, state: &State, is_final: bool) -> Result<(), String> {
        let effects: Vec<i8> = state.data.effects.iter().map(|e| e.abs()).collect();
        let is_skipped = |effect: i8| state.data.skipped.contains(&effect.unsigned_abs());
        let ordered = effects.iter().copied().filter(|effect| !is_skipped(*effect));
        let last = ordered.clone().max().unwrap_or_default();
        let is_once = effects.iter().collect::<HashSet<_>>().len() == effects.len();
        if !is_once || !ordered.eq((1..=last).filter(|effect| !is_skipped(*effect))) {
            return Err(format!("effects out of order or doubled: {:?}", state.data.effects));
        }
        let complete = effects.len() == usize::from(self.messages);
        let is_at_rest = state.data.key.is_none() && state.data.held.is_empty();
        if is_final && !(complete && is_at_rest && state.data.letters.is_empty()) {
            return Err(format!("lost or still parked: {:?} {:?}", state.data.effects, state.data.key));
        }
        Ok(())
    }

    /// How many states and final states there are, or the first fault.
    fn explore(&self, budget: Budget) -> Result<(usize, usize), String> {
        let first = self.first(budget);
        let (mut seen, mut finals) = (HashSet::from([first.clone()]), 0);
        let mut open = VecDeque::from([first]);
        while let Some(state) = open.pop_front() {
            self.check(&state, false)?;
            // A rule that asserts has found a fault too.
            let next = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.next(&state)));
            let next = next.map_err(|_| "an assertion of the world".to_owned())?;
            if next.is_empty() {
                finals += 1;
                self.check(&state, true)?;
            }
            open.extend(next.into_iter().filter(|state| seen.insert(state.clone())));
        }
        Ok((seen.len(), finals))
    }
}

fn relay(state: &State, next: &mut Vec<State>) {
    if let Some((topic, rec)) = state.data.outbox.get(state.published) {
        let mut more = state.clone();
        more.topics[*topic].push_back(*rec);
        more.published += 1;
        next.push(more);
    }
    if state.published > 0 {
        let mut stored = state.clone();
        stored.data.outbox.drain(..state.published);
        stored.published = 0;
        next.push(stored);
        if state.budget.repeats > 0 {
            let mut restarted = state.clone();
            restarted.published = 0;
            restarted.budget.repeats -= 1;
            next.push(restarted);
        }
    }
}

fn effect(rec: Rec) -> i8 {
    i8::try_from(rec.message).unwrap()
}

const BUDGET: Budget = Budget { retries: 3, rejects: 1, crashes: 1, repeats: 1, discards: 1 };

#[test]
fn order_holds_and_nothing_is_lost_or_doubled_when_dead_letters_block() {
    let (states, finals) = World::new(3, 2, Poisoned::Block, Fault::None).explore(BUDGET).unwrap();
    println!("block: {states} states, {finals} final");
    assert_eq!(
        (states, finals),
        (200_491, 468),
        "as many as the protocol has in its first, independent model"
    );
}

#[test]
fn order_holds_and_nothing_is_lost_or_doubled_when_dead_letters_are_skipped() {
    let (states, finals) = World::new(3, 2, Poisoned::Skip, Fault::None).explore(BUDGET).unwrap();
    println!("skip: {states} states, {finals} final");
    assert!(states > 10_000);
    // Two letters of the key at once, and no second chance for anything else.
    let budget = Budget { retries: 1, rejects: 2, crashes: 1, repeats: 0, discards: 1 };
    let (states, finals) = World::new(3, 1, Poisoned::Skip, Fault::None).explore(budget).unwrap();
    println!("skip, two letters: {states} states, {finals} final");
    assert!(states > 1_000);
}

#[test]
fn faults_put_into_the_rules_are_caught() {
    let faults = [
        Fault::NoInbox,
        Fault::NoPark,
        Fault::NoHop,
        Fault::ReleaseAll,
        Fault::NoHeldCheck,
        Fault::UnparkFirst,
    ];
    for poisoned in [Poisoned::Block, Poisoned::Skip] {
        for fault in faults {
            let found = World::new(3, 2, poisoned, fault).explore(BUDGET);
            let why = found.expect_err(&format!("{poisoned:?}: {fault:?} was not noticed"));
            println!("{poisoned:?}: {fault:?}: {why}");
        }
    }
}
