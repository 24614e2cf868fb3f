//! The relay's core explored exhaustively: every interleaving of small worlds of transactions, relays, crashes and
//! failures. The code explored is the code that runs; faults put into it on purpose, and the usual recipes, are caught.

/// As `println!`, but for every run to show: the test harness keeps that of a test that succeeds to itself.
macro_rules! say {
    ($($word:tt)*) => {{
        use std::io::Write as _;
        let _closed = writeln!(std::io::stdout(), $($word)*);
    }};
}

mod explore;
mod lease;
mod recipes;
mod relay;
mod share;
mod world;

use explore::{Outcome, explore, explore_two};
use relay::Fault;
use world::{Budget, World};

/// Transactions of the worlds: `x` takes a transaction id, a letter appends to that aggregate (and locks it first).
const LATE_XIDS: &[&str] = &["xA", "A", "B"];
const TWO_CROSSED: &[&str] = &["xBA", "AB"];
const CROSSED_LOCKS: &[&str] = &["xBA", "A", "AB"];
const ONE_AGGREGATE: &[&str] = &["xA", "xA", "AA"];
const FOUR: &[&str] = &["xA", "A", "B", "A"];

fn run(programs: &'static [&'static str], piece_rows: usize, budget: Budget, fault: Fault) -> Outcome {
    let outcome = explore(World::new(programs, budget), piece_rows, fault);
    say!("{programs:?} pieces of {piece_rows}, {budget:?}, {fault:?}: {outcome}");
    outcome
}

fn holds(programs: &'static [&'static str], piece_rows: usize, budget: Budget) {
    let outcome = run(programs, piece_rows, budget, Fault::None);
    assert_eq!(outcome.violation, None);
    assert!(outcome.finals > 0, "the world must end");
}

#[test]
fn order_and_completeness_hold_through_crashes_and_takeovers() {
    let crash = Budget { crashes: 1, ..Budget::default() };
    holds(LATE_XIDS, 1, crash);
    holds(LATE_XIDS, 2, crash);
    holds(ONE_AGGREGATE, 1, crash);
    holds(TWO_CROSSED, 1, crash);
    holds(TWO_CROSSED, 2, crash);
}

#[test]
fn order_and_completeness_hold_through_two_crashes() {
    holds(&["xA", "A"], 1, Budget { crashes: 2, ..Budget::default() });
}

#[test]
fn order_and_completeness_hold_while_partitions_are_dropped() {
    let drops = Budget { drops: 2, ..Budget::default() };
    holds(LATE_XIDS, 2, drops);
    holds(&["xA", "A"], 1, Budget { crashes: 1, ..drops });
}

#[test]
fn order_and_completeness_hold_with_two_databases() {
    let crash = Budget { crashes: 1, ..Budget::default() };
    let worlds = [World::new(&["xA", "A"], crash), World::new(&["xB"], crash)];
    let outcome = explore_two(worlds, 1, Fault::None);
    say!("two databases, {crash:?} each: {outcome}");
    assert_eq!(outcome.violation, None);
    let worlds = [World::new(&["xA", "A"], crash), World::new(&["xB"], crash)];
    let caught = explore_two(worlds, 1, Fault::StoreBeforeAcknowledgement);
    say!("two databases, StoreBeforeAcknowledgement: {caught}");
    assert!(caught.violation.is_some());
}

#[test]
#[ignore = "millions of states, minutes: cargo xtask chaos relay-model"]
fn order_and_completeness_hold_in_larger_worlds() {
    let crash = Budget { crashes: 1, ..Budget::default() };
    holds(FOUR, 2, Budget { drops: 1, ..Budget::default() });
    holds(FOUR, 2, Budget::default());
    holds(FOUR, 2, crash);
    holds(CROSSED_LOCKS, 2, crash);
    holds(CROSSED_LOCKS, 1, crash);
    holds(ONE_AGGREGATE, 2, Budget { failures: 1, ..crash });
}

#[test]
fn order_and_completeness_hold_through_failed_deliveries() {
    let failure = Budget { failures: 1, ..Budget::default() };
    holds(LATE_XIDS, 1, failure);
    holds(CROSSED_LOCKS, 2, failure);
    holds(ONE_AGGREGATE, 2, failure);
}

#[test]
fn order_and_completeness_hold_through_restarts_of_the_database() {
    let restart = Budget { restarts: 1, ..Budget::default() };
    holds(LATE_XIDS, 1, restart);
    holds(ONE_AGGREGATE, 1, restart);
}

#[test]
fn faults_put_into_the_relay_are_caught() {
    let none = Budget::default();
    // What the fault needs to show itself, and no more: every other misfortune multiplies the states.
    let budget = |fault| match fault {
        Fault::KeepMemoryOverRestart => Budget { restarts: 1, ..none },
        Fault::DropUnpublished | Fault::DropWhatWasRead => Budget { crashes: 1, drops: 1, ..none },
        _ => Budget { crashes: 1, failures: 1, ..none },
    };
    let caught = |fault| {
        let worlds = [LATE_XIDS, CROSSED_LOCKS, ONE_AGGREGATE];
        worlds.iter().any(|world| run(world, 2, budget(fault), fault).violation.is_some())
    };
    for fault in [
        Fault::AppendWithoutLock,
        Fault::ReadInXidOrder,
        Fault::StoreBeforeAcknowledgement,
        Fault::StorePastAGap,
        Fault::PassAFailedRow,
        Fault::SendBehindAFirstRow,
        Fault::CountPastAFailedRow,
        Fault::KeepMemoryOverRestart,
        Fault::DropUnpublished,
        Fault::DropWhatWasRead,
    ] {
        assert!(caught(fault), "{fault:?} must be caught");
    }
}

/// A finding, not a fault: a zombie that may still write its position makes repeats only, because every position is
/// stored after its acknowledgements. The fence bounds how many.
#[test]
fn an_unfenced_position_only_repeats() {
    let budget = Budget { crashes: 1, ..Budget::default() };
    let outcome = run(&["xA", "A"], 1, budget, Fault::NoFence);
    assert_eq!(outcome.violation, None);
}

#[test]
fn the_usual_recipes_are_caught() {
    for recipe in recipes::Recipe::ALL {
        let worlds = [LATE_XIDS, CROSSED_LOCKS, ONE_AGGREGATE];
        let outcomes = worlds.map(|world| recipes::explore(World::new(world, Budget::default()), recipe));
        say!("{recipe:?}: {}", outcomes.each_ref().map(ToString::to_string).join("; "));
        assert!(outcomes.iter().any(|outcome| outcome.violation.is_some()), "{recipe:?} must be caught");
    }
}
