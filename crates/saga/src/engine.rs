//! The engine: a pure function from (definition, state, input) to (state, effects). No clock, no ids, no I/O.

use crate::definition::{Act, Definition, Kind};
use crate::input::{Ignored, Input, Outcome, Verb};
use crate::state::{Ending, Phase, State, Wait};

/// The reason of a saga that turned round because nobody answered in time.
pub const REASON_TIMED_OUT: &str = "timed_out";
/// Why a saga is stuck when the last attempt got no answer.
pub const WHY_NO_REPLY: &str = "no_reply";

/// What a transition asks to be done, in order. Match with a wildcard: more may join.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Send the command of a step or of its compensation. The runner does it.
    Command {
        /// The step.
        step: &'static str,
        /// The step or its compensation.
        phase: Phase,
        /// 1 for the first time.
        attempt: u32,
    },
    /// Do this local step now, in the same transaction.
    Local {
        /// The step.
        step: &'static str,
    },
    /// Take this local step back now, in the same transaction.
    LocalCompensation {
        /// The step.
        step: &'static str,
    },
    /// The saga has ended.
    Finished(Ending),
    /// The saga waits for an operator.
    Stuck {
        /// The step.
        step: &'static str,
        /// The step or its compensation.
        phase: Phase,
        /// What is in the way.
        why: String,
    },
    /// The whole saga's deadline is over, but it can no longer turn round: somebody should look.
    Overdue,
}

/// The result of an input: the new state and what is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The state from now on; the old one when the input was ignored.
    pub state: State,
    /// What is to be done, in order. At most one [`Effect::Command`], and nothing after it.
    pub effects: Vec<Effect>,
    /// Why the input changed nothing; `None` when it was accepted.
    pub ignored: Option<Ignored>,
}

/// A state that does not belong to its definition: the row was changed by hand, or a definition without a new version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "saga {saga} version {version} has no {phase:?} for a step called {step:?}; a changed definition needs a new version"
)]
pub struct UnknownStep {
    /// The definition's name.
    pub saga: &'static str,
    /// The definition's version.
    pub version: u32,
    /// The step the state names.
    pub step: String,
    /// What the state says of it.
    pub phase: Phase,
}

/// Begins a saga: the state after the first command is out, or after everything, when all steps are local.
#[must_use]
pub fn start<D>(definition: &Definition<D>) -> Transition {
    forward(definition, 0)
}

/// Takes one input. Total: every input in every state of the definition is either accepted or ignored.
///
/// # Errors
/// [`UnknownStep`] when the state is not one of this definition.
pub fn step<D>(definition: &Definition<D>, state: &State, input: &Input) -> Result<Transition, UnknownStep> {
    let at = match state {
        State::Ended(_) => return Ok(ignore(state, Ignored::Ended)),
        live => Here::find(definition, live)?,
    };
    Ok(match input {
        Input::Reply { step, phase, outcome } => {
            if *phase == at.phase && *step == at.name() {
                at.reply(outcome)
            } else {
                ignore(state, Ignored::OutOfPhase)
            }
        }
        Input::Deadline => at.deadline(),
        // It ends soon by its own deadline.
        Input::SagaDeadline if at.is_last_call() => accept(state.clone(), Vec::new()),
        Input::SagaDeadline if at.can_turn() => at.last_call(),
        Input::SagaDeadline => accept(state.clone(), vec![Effect::Overdue]),
        Input::Cancel { reason } if at.can_turn() => at.turn(reason),
        Input::Cancel { .. } if at.phase == Phase::Compensate => ignore(state, Ignored::Compensating),
        Input::Cancel { .. } => ignore(state, Ignored::PastPivot),
        Input::Operator(verb) => at.operator(*verb),
    })
}

/// A live state with its place in the definition.
struct Here<'a, D> {
    definition: &'a Definition<D>,
    state: &'a State,
    place: usize,
    phase: Phase,
    /// Of the phase it is in.
    attempts_max: u32,
}

impl<'a, D> Here<'a, D> {
    fn find(definition: &'a Definition<D>, state: &'a State) -> Result<Self, UnknownStep> {
        let (step, phase) = state.at().unwrap_or(("", Phase::Act));
        let place = definition.place(step);
        let attempts_max = place.and_then(|place| match (phase, &definition.rows[place].kind) {
            (Phase::Act, _) => Some(definition.rows[place].step.attempts_max),
            (Phase::Compensate, Kind::Compensatable(compensation)) => Some(compensation.attempts_max),
            (Phase::Compensate, Kind::Pivot | Kind::Retriable) => None,
        });
        match (place, attempts_max) {
            (Some(place), Some(attempts_max)) => Ok(Self { definition, state, place, phase, attempts_max }),
            _ => Err(UnknownStep {
                saga: definition.name,
                version: definition.version,
                step: step.to_owned(),
                phase,
            }),
        }
    }

    fn name(&self) -> &'static str {
        self.definition.rows[self.place].step.name
    }

    fn kind(&self) -> &Kind<D> {
        &self.definition.rows[self.place].kind
    }

    /// Before the pivot and going forward: the saga may still turn round.
    fn can_turn(&self) -> bool {
        self.phase == Phase::Act && matches!(self.kind(), Kind::Compensatable(_))
    }

    fn is_last_call(&self) -> bool {
        use State::{Acting, Compensating};
        matches!(self.state, Acting { wait: Wait::LastCall, .. } | Compensating { wait: Wait::LastCall, .. })
    }

    /// A reply to what is, or was last, waited for. A late one also frees a stuck saga.
    fn reply(&self, outcome: &Outcome) -> Transition {
        match (outcome, self.phase, self.kind()) {
            (Outcome::Done, Phase::Act, _) => forward(self.definition, self.place + 1),
            (Outcome::Done, Phase::Compensate, _) => backward(self.definition, self.place, self.reason()),
            (
                Outcome::Refused { reason } | Outcome::Failed { reason },
                Phase::Act,
                Kind::Compensatable(_) | Kind::Pivot,
            ) => backward(self.definition, self.place, reason),
            (Outcome::Refused { reason } | Outcome::Failed { reason }, _, _) => self.failure(reason),
        }
    }

    /// "Not now" from a retriable step or a compensation.
    ///
    /// A failure that was said of an earlier attempt and comes late counts too. Nothing in a reply tells the attempt for
    /// certain: a participant answers a repeated command with the reply it has stored, whose cause may be any of them. What
    /// it said holds for the natural key, not for one command. At worst a back-off begins, or an operator is called, some
    /// attempts early; a later "done" still moves the saga on.
    fn failure(&self, why: &str) -> Transition {
        match self.state {
            State::Acting { wait: Wait::BackOff, .. } | State::Compensating { wait: Wait::BackOff, .. } => {
                ignore(self.state, Ignored::BackingOff)
            }
            State::Acting { attempt, .. } | State::Compensating { attempt, .. }
                if *attempt < self.attempts_max =>
            {
                accept(self.waiting(*attempt, Wait::BackOff), Vec::new())
            }
            State::Acting { .. } | State::Compensating { .. } => self.stuck(why),
            State::StuckActing { .. } | State::StuckCompensating { .. } | State::Ended(_) => {
                ignore(self.state, Ignored::Stuck)
            }
        }
    }

    /// No reply in time: unknown, so the same command again; or the back-off is over.
    fn deadline(&self) -> Transition {
        match self.state {
            // Unknown for good. What can be taken back is, the step in doubt included; anything else needs a person.
            State::Acting { .. } if self.is_last_call() && self.can_turn() => self.turn(REASON_TIMED_OUT),
            State::Acting { .. } | State::Compensating { .. } if self.is_last_call() => {
                self.stuck(WHY_NO_REPLY)
            }
            State::Acting { attempt, .. } | State::Compensating { attempt, .. }
                if *attempt < self.attempts_max =>
            {
                self.send(attempt + 1, Wait::Reply)
            }
            State::Acting { .. } | State::Compensating { .. } => self.last_call(),
            State::StuckActing { .. } | State::StuckCompensating { .. } | State::Ended(_) => {
                ignore(self.state, Ignored::Stuck)
            }
        }
    }

    /// The command once more. That it is published tells that messages got through after the time for an answer was over.
    fn last_call(&self) -> Transition {
        match self.state {
            State::Acting { attempt, .. } | State::Compensating { attempt, .. } => {
                self.send(attempt.saturating_add(1), Wait::LastCall)
            }
            waiting => ignore(waiting, Ignored::Stuck),
        }
    }

    /// Turns round with the step in flight in doubt: it is taken back too.
    fn turn(&self, reason: &str) -> Transition {
        backward(self.definition, self.place + 1, reason)
    }

    fn operator(&self, verb: Verb) -> Transition {
        match (self.state, verb) {
            (State::StuckActing { .. } | State::StuckCompensating { .. }, Verb::Retry) => {
                self.send(1, Wait::Reply)
            }
            (State::StuckActing { .. }, Verb::Skip) => forward(self.definition, self.place + 1),
            (State::StuckCompensating { .. }, Verb::Skip) => {
                backward(self.definition, self.place, self.reason())
            }
            // Also of one that still moves: only a person knows that waiting is in vain.
            (_, Verb::Abandon) => end(Ending::Abandoned, Vec::new()),
            _ => ignore(self.state, Ignored::NotStuck),
        }
    }

    fn send(&self, attempt: u32, wait: Wait) -> Transition {
        let effect = Effect::Command { step: self.name(), phase: self.phase, attempt };
        accept(self.waiting(attempt, wait), vec![effect])
    }

    fn stuck(&self, why: &str) -> Transition {
        let (step, why) = (self.name(), why.to_owned());
        let state = match self.phase {
            Phase::Act => State::StuckActing { step: step.to_owned(), why: why.clone() },
            Phase::Compensate => State::StuckCompensating {
                step: step.to_owned(),
                why: why.clone(),
                reason: self.reason().to_owned(),
            },
        };
        accept(state, vec![Effect::Stuck { step, phase: self.phase, why }])
    }

    fn waiting(&self, attempt: u32, wait: Wait) -> State {
        waiting(self.name(), self.phase, attempt, wait, self.reason())
    }

    /// Why the saga turned round; empty when it has not.
    fn reason(&self) -> &'a str {
        match self.state {
            State::Compensating { reason, .. } | State::StuckCompensating { reason, .. } => reason,
            _ => "",
        }
    }
}

/// Goes forward from the step at `place`: through local ones, up to a command to wait for or to the end.
fn forward<D>(definition: &Definition<D>, place: usize) -> Transition {
    let mut effects = Vec::new();
    for row in &definition.rows[place..] {
        let step = row.step.name;
        match row.step.act {
            Act::Local => effects.push(Effect::Local { step }),
            Act::Command(_) => {
                effects.push(Effect::Command { step, phase: Phase::Act, attempt: 1 });
                return accept(waiting(step, Phase::Act, 1, Wait::Reply, ""), effects);
            }
        }
    }
    end(Ending::Completed, effects)
}

/// Takes back the first `count` steps, the last of them first, up to a command to wait for or to the end.
fn backward<D>(definition: &Definition<D>, count: usize, reason: &str) -> Transition {
    let mut effects = Vec::new();
    for row in definition.rows[..count].iter().rev() {
        let step = row.step.name;
        match &row.kind {
            Kind::Compensatable(compensation) => match compensation.act {
                Act::Local => effects.push(Effect::LocalCompensation { step }),
                Act::Command(_) => {
                    effects.push(Effect::Command { step, phase: Phase::Compensate, attempt: 1 });
                    return accept(waiting(step, Phase::Compensate, 1, Wait::Reply, reason), effects);
                }
            },
            // Only compensatable steps stand before the pivot (the builder's types), and nothing turns round after it.
            Kind::Pivot | Kind::Retriable => {
                debug_assert!(false, "a step past the pivot is never taken back")
            }
        }
    }
    end(Ending::Compensated { reason: reason.to_owned() }, effects)
}

fn waiting(step: &str, phase: Phase, attempt: u32, wait: Wait, reason: &str) -> State {
    match phase {
        Phase::Act => State::Acting { step: step.to_owned(), attempt, wait },
        Phase::Compensate => {
            State::Compensating { step: step.to_owned(), attempt, wait, reason: reason.to_owned() }
        }
    }
}

fn end(ending: Ending, mut effects: Vec<Effect>) -> Transition {
    effects.push(Effect::Finished(ending.clone()));
    accept(State::Ended(ending), effects)
}

fn accept(state: State, effects: Vec<Effect>) -> Transition {
    Transition { state, effects, ignored: None }
}

fn ignore(state: &State, why: Ignored) -> Transition {
    Transition { state: state.clone(), effects: Vec::new(), ignored: Some(why) }
}
