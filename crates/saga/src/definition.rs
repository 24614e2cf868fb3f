//! The table of steps: a builder whose type knows whether the pivot has been passed.

use std::marker::PhantomData;
use std::time::Duration;

use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Draft;

/// A saga has at most this many steps: a table longer than this is no longer one business transaction.
pub const STEPS_COUNT_MAX: usize = 32;
/// No step and no saga waits longer than this: 30 days in seconds.
pub const DEADLINE_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// Makes a step's command from the saga's data; called again, with the same data, for every attempt.
///
/// The draft carries the natural key (for an order: the order id), so that a participant knows a repeated command.
/// All drafts of one saga instance for one topic have the same record key: their sequence is counted per topic.
pub type Command<D> = fn(&D) -> Result<Draft, CodecError>;

/// What a step, or a compensation, does.
#[derive(Debug)]
pub enum Act<D> {
    /// Sends a command and waits for its reply.
    Command(Command<D>),
    /// Done at once by the owner of the saga, in the transaction that advances it; told as an effect.
    Local,
}

/// One step of a saga.
#[derive(Debug)]
pub struct Step<D> {
    /// Unique in its definition; what replies, the log and operators call it.
    pub name: &'static str,
    /// What it does.
    pub act: Act<D>,
    /// How long one attempt waits for its reply, from the time its command is published. Unused by [`Act::Local`].
    pub deadline: Duration,
    /// How often the command is sent for its reply at most, the first time included. Before silence counts it is sent once
    /// more ([`crate::state::Wait::LastCall`]).
    pub attempts_max: u32,
}

/// What takes a compensatable step back. It must succeed in the end: it is retried, then the saga is stuck.
#[derive(Debug)]
pub struct Compensation<D> {
    /// What it does.
    pub act: Act<D>,
    /// As [`Step::deadline`].
    pub deadline: Duration,
    /// As [`Step::attempts_max`].
    pub attempts_max: u32,
}

/// Where a step stands in relation to the pivot; a compensatable one brings its compensation.
#[derive(Debug)]
pub enum Kind<D> {
    /// Before the pivot: can be taken back.
    Compensatable(Compensation<D>),
    /// The point of no return: once done, the saga only goes forward.
    Pivot,
    /// After the pivot: repeated until it succeeds.
    Retriable,
}

/// A step with its kind: a row of the table.
#[derive(Debug)]
pub(crate) struct Row<D> {
    pub(crate) step: Step<D>,
    pub(crate) kind: Kind<D>,
}

/// A saga's steps, in order, under a name and a version. Instances remember the version they began with.
#[derive(Debug)]
pub struct Definition<D> {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) deadline: Option<Duration>,
    pub(crate) rows: Vec<Row<D>>,
}

/// Type state: the pivot has not been named yet, compensatable steps may follow.
#[derive(Debug)]
pub struct BeforePivot;
/// Type state: the pivot has been named, only retriable steps may follow.
#[derive(Debug)]
pub struct AfterPivot;

/// Collects the steps of a [`Definition`]. A compensatable step after the pivot does not compile:
///
/// ```compile_fail,E0599
/// use std::time::Duration;
/// use waybill_saga::{Compensation, Definition, Step};
/// let saga: Definition<()> = Definition::named("trip", 1)
///     .pivot(Step::local("pay"))
///     .compensatable(Step::local("book-hotel"), Compensation::local()) // no such method here
///     .build();
/// ```
///
/// The same steps in an order that can be taken back do:
///
/// ```
/// use waybill_saga::{Compensation, Definition, Step};
/// let saga: Definition<()> = Definition::named("trip", 1)
///     .compensatable(Step::local("book-hotel"), Compensation::local())
///     .pivot(Step::local("pay"))
///     .build();
/// assert_eq!(saga.steps().count(), 2);
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder<D, S> {
    definition: Definition<D>,
    place: PhantomData<S>,
}

impl<D> Step<D> {
    /// A step that sends a command and waits `deadline` for its reply, at most `attempts_max` times.
    #[must_use]
    pub fn command(name: &'static str, command: Command<D>, deadline: Duration, attempts_max: u32) -> Self {
        Self { name, act: Act::Command(command), deadline, attempts_max }
    }

    /// A step the saga's owner does at once, in the same transaction, when told so by an effect.
    #[must_use]
    pub fn local(name: &'static str) -> Self {
        Self { name, act: Act::Local, deadline: Duration::from_secs(1), attempts_max: 1 }
    }
}

impl<D> Compensation<D> {
    /// A compensation that sends a command and waits `deadline` for its reply, at most `attempts_max` times.
    #[must_use]
    pub fn command(command: Command<D>, deadline: Duration, attempts_max: u32) -> Self {
        Self { act: Act::Command(command), deadline, attempts_max }
    }

    /// A compensation done at once by the saga's owner; also for a step that leaves nothing to take back.
    #[must_use]
    pub fn local() -> Self {
        Self { act: Act::Local, deadline: Duration::from_secs(1), attempts_max: 1 }
    }
}

impl<D> Definition<D> {
    /// Begins a definition. `version` grows with every change of the steps; see [`crate::Runner::new`].
    pub fn named(name: &'static str, version: u32) -> Builder<D, BeforePivot> {
        let definition = Self { name, version, deadline: None, rows: Vec::new() };
        Builder { definition, place: PhantomData }
    }

    /// The saga's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The definition's version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The steps in order, with their kinds.
    pub fn steps(&self) -> impl Iterator<Item = (&Step<D>, &Kind<D>)> {
        self.rows.iter().map(|row| (&row.step, &row.kind))
    }

    /// The place of a step by its name.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.step.name == name)
    }

    fn check(&self) {
        let name = self.name;
        let in_bounds = |d: Duration| !d.is_zero() && d.as_secs() <= DEADLINE_SECONDS_MAX;
        assert!(self.rows.len() <= STEPS_COUNT_MAX, "saga {name}: more than {STEPS_COUNT_MAX} steps");
        assert!(self.deadline.is_none_or(in_bounds), "saga {name}: deadline out of bounds");
        for (place, row) in self.rows.iter().enumerate() {
            let step = row.step.name;
            assert_eq!(self.place(step), Some(place), "saga {name}: two steps are called {step}");
            assert!(in_bounds(row.step.deadline), "saga {name}: deadline of {step} out of bounds");
            assert!(row.step.attempts_max > 0, "saga {name}: {step} is never sent");
            if let Kind::Compensatable(compensation) = &row.kind {
                assert!(in_bounds(compensation.deadline), "saga {name}: compensation of {step}: deadline");
                assert!(compensation.attempts_max > 0, "saga {name}: compensation of {step} is never sent");
            }
        }
    }
}

impl<D, S> Builder<D, S> {
    /// How long the whole saga may take. Before the pivot it then turns round with the reason `timed_out`; later it only alerts.
    /// The clock stands still while a command waits for the relay.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.definition.deadline = Some(deadline);
        self
    }

    fn push<T>(mut self, step: Step<D>, kind: Kind<D>) -> Builder<D, T> {
        self.definition.rows.push(Row { step, kind });
        Builder { definition: self.definition, place: PhantomData }
    }
}

impl<D> Builder<D, BeforePivot> {
    /// Adds a step that can be taken back.
    pub fn compensatable(self, step: Step<D>, compensation: Compensation<D>) -> Self {
        self.push(step, Kind::Compensatable(compensation))
    }

    /// Adds the point of no return. After it only retriable steps can follow.
    pub fn pivot(self, step: Step<D>) -> Builder<D, AfterPivot> {
        self.push(step, Kind::Pivot)
    }

    /// No step decides: what follows is repeated until it succeeds. For sagas that only go forward.
    pub fn without_pivot(self) -> Builder<D, AfterPivot> {
        Builder { definition: self.definition, place: PhantomData }
    }
}

impl<D> Builder<D, AfterPivot> {
    /// Adds a step that is repeated until it succeeds.
    pub fn retriable(self, step: Step<D>) -> Self {
        self.push(step, Kind::Retriable)
    }

    /// The finished table.
    ///
    /// # Panics
    /// When two steps share a name, a deadline is zero or beyond [`DEADLINE_SECONDS_MAX`], a step may never be sent, or there
    /// are more than [`STEPS_COUNT_MAX`] steps: faults of the program, met when it starts.
    #[must_use]
    pub fn build(self) -> Definition<D> {
        self.definition.check();
        self.definition
    }
}
