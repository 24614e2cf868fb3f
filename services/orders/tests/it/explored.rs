//! The real sagas and the order that follows them, in every state they can reach together: under any order of replies,
//! deadlines, cancels and operators' verbs the order never refuses to follow, and at the end all three agree.

use std::collections::HashSet;

use chrono::DateTime;
use uuid::Uuid;
use waybill_events::{CustomerId, OrderId};
use waybill_orders::domain::order::{Order, State as OrderState};
use waybill_orders::domain::reason::Reason;
use waybill_orders::sagas::{Patience, cancel_order, place_order};
use waybill_saga::engine::{self, Transition};
use waybill_saga::{Definition, Effect, Ending, Input, Outcome, Phase, State, Status, Verb};

/// An operator may step in this often on one path; without a bound a retry could follow a retry for ever.
const OPERATOR_VERBS_MAX: u8 = 2;

/// An order and its sagas, between two transactions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    place: State,
    cancel: Option<State>,
    /// Its status and the reason of it.
    order: (waybill_orders::domain::order::Status, Option<String>),
    operator_verbs: u8,
}

/// The tables of both sagas.
struct Sagas {
    place: Definition<place_order::PlaceOrder>,
    cancel: Definition<cancel_order::CancelOrder>,
}

impl World {
    fn order(&self) -> Order {
        let (id, customer) = (OrderId::from(Uuid::nil()), CustomerId::from(Uuid::nil()));
        let mut order = Order::placed(id, customer, "EUR".parse().unwrap(), 1, DateTime::UNIX_EPOCH);
        let reason = self.order.1.as_deref().map(Reason::new);
        order.state = OrderState::of(self.order.0, reason).expect("a state of an order");
        order
    }

    fn keep(&mut self, order: &Order) {
        let reason = order.state.reason().map(|reason| reason.as_str().to_owned());
        self.order = (order.state.status(), reason);
    }

    /// `place-order` has taken an input: its order follows, as the command `saga_progress` has it.
    fn placed(&self, sagas: &Sagas, after: &Transition) -> Self {
        let mut next = Self { place: after.state.clone(), ..self.clone() };
        let mut order = self.order();
        let now = DateTime::UNIX_EPOCH;
        for effect in &after.effects {
            let confirmed = order.state == OrderState::Confirmed;
            let followed = match effect {
                Effect::Local { .. } => order.confirm(now).map(drop),
                Effect::Finished(Ending::Compensated { reason }) => {
                    order.taken_back(Reason::new(reason), now).map(drop)
                }
                Effect::Finished(Ending::Completed) => {
                    if matches!(order.state, OrderState::Cancelling { .. }) {
                        next.cancel = Some(engine::start(&sagas.cancel).state);
                    }
                    Ok(())
                }
                Effect::Finished(Ending::Abandoned) if !confirmed => {
                    order.taken_back(Reason::new(Reason::ABANDONED_BY_OPERATOR), now).map(drop)
                }
                _ => Ok(()),
            };
            followed.unwrap_or_else(|refused| panic!("out of step: {refused}: {after:?} in {self:?}"));
        }
        next.keep(&order);
        next
    }

    fn cancelled(&self, after: &Transition) -> Self {
        let mut next = Self { cancel: Some(after.state.clone()), ..self.clone() };
        if after.effects.iter().any(|effect| matches!(effect, Effect::Finished(_))) {
            let mut order = self.order();
            order.cancelled(DateTime::UNIX_EPOCH).unwrap_or_else(|refused| panic!("{refused}: {self:?}"));
            next.keep(&order);
        }
        next
    }

    /// The customer's cancel, as the command `cancel_order` has it; `None` when it is refused or says nothing new.
    fn cancel(&self, sagas: &Sagas) -> Option<Self> {
        let input = Input::Cancel { reason: Reason::CANCELLED_BY_CUSTOMER.to_owned() };
        let after = engine::step(&sagas.place, &self.place, &input).unwrap();
        let mut order = self.order();
        let confirmed = order.state == OrderState::Confirmed;
        if confirmed && self.place.status() == Status::Abandoned {
            return None;
        }
        let asked =
            order.request_cancellation(Reason::new(Reason::CANCELLED_BY_CUSTOMER), DateTime::UNIX_EPOCH);
        asked.ok()??;
        let mut asking = self.clone();
        asking.keep(&order);
        let mut next = asking.placed(sagas, &after);
        if confirmed && after.state.status().is_ended() {
            next.cancel = Some(engine::start(&sagas.cancel).state);
        }
        Some(next)
    }

    fn next(&self, sagas: &Sagas) -> Vec<Self> {
        let mut next: Vec<Self> = self.cancel(sagas).into_iter().collect();
        for input in inputs(&sagas.place, self.operator_verbs) {
            let after = engine::step(&sagas.place, &self.place, &input).unwrap();
            if after.ignored.is_none() {
                next.push(counted(self.placed(sagas, &after), &input));
            }
        }
        for input in inputs(&sagas.cancel, self.operator_verbs) {
            let Some(state) = &self.cancel else { break };
            let after = engine::step(&sagas.cancel, state, &input).unwrap();
            if after.ignored.is_none() {
                next.push(counted(self.cancelled(&after), &input));
            }
        }
        next
    }

    /// What `waybillctl verify` says of an order and its sagas.
    fn check(&self) {
        use waybill_orders::domain::order::Status as Order;
        use waybill_saga::Status::{Abandoned, Compensated, Compensating, Completed, Running, Stuck};
        let (place, cancel) = (self.place.status(), self.cancel.as_ref().map(State::status));
        let agree = match self.order.0 {
            Order::Pending => matches!((place, cancel), (Running | Compensating | Stuck, None)),
            Order::Confirmed => matches!((place, cancel), (Running | Completed | Stuck | Abandoned, None)),
            Order::Rejected => matches!((place, cancel), (Compensated | Abandoned, None)),
            Order::Cancelling => matches!(
                (place, cancel),
                (Running | Compensating | Stuck, None) | (Completed, Some(Running | Stuck))
            ),
            Order::Cancelled => matches!(
                (place, cancel),
                (Compensated | Abandoned, None) | (Completed, Some(Completed | Abandoned))
            ),
        };
        assert!(agree, "an order and its sagas disagree: {self:?}");
        // Nobody stops in the middle: what is not at its end is moved by time, or waits for an operator.
        let moves = |state: &State| matches!(state.status(), Running | Compensating | Stuck);
        let ended = !moves(&self.place) && !self.cancel.as_ref().is_some_and(moves);
        let settled = matches!(self.order.0, Order::Confirmed | Order::Rejected | Order::Cancelled);
        assert!(settled || !ended, "nobody moves {self:?}");
    }
}

fn counted(world: World, input: &Input) -> World {
    let by_operator = u8::from(matches!(input, Input::Operator(_)));
    World { operator_verbs: world.operator_verbs + by_operator, ..world }
}

/// Every input that can reach a saga: all replies there are, time, and as many verbs as are left.
fn inputs<D>(definition: &Definition<D>, operator_verbs: u8) -> Vec<Input> {
    let mut inputs = vec![Input::Deadline, Input::SagaDeadline];
    if operator_verbs < OPERATOR_VERBS_MAX {
        inputs.extend([Verb::Retry, Verb::Skip, Verb::Abandon].map(Input::Operator));
    }
    for (step, _) in definition.steps() {
        for phase in [Phase::Act, Phase::Compensate] {
            let reason = || "answered".to_owned();
            for outcome in
                [Outcome::Done, Outcome::Refused { reason: reason() }, Outcome::Failed { reason: reason() }]
            {
                inputs.push(Input::Reply { step: step.name, phase, outcome });
            }
        }
    }
    inputs
}

#[test]
fn every_state_of_an_order_and_its_sagas_agrees() {
    let patience = Patience::default();
    let sagas =
        Sagas { place: place_order::definition(patience), cancel: cancel_order::definition(patience) };
    let placed = waybill_orders::domain::order::Status::Pending;
    let begun = engine::start(&sagas.place).state;
    let mut open = vec![World { place: begun, cancel: None, order: (placed, None), operator_verbs: 0 }];
    let (mut seen, mut transitions) = (HashSet::new(), 0_usize);
    while let Some(world) = open.pop() {
        if seen.contains(&world) {
            continue;
        }
        world.check();
        let next = world.next(&sagas);
        transitions += next.len();
        open.extend(next);
        seen.insert(world);
    }
    let ends: HashSet<_> = seen
        .iter()
        .filter(|world| world.place.status().is_ended())
        .map(|world| (world.order.0, world.place.status(), world.cancel.as_ref().map(State::status)))
        .collect();
    println!(
        "{} states of an order and its sagas, {transitions} transitions, {} kinds of ends",
        seen.len(),
        ends.len()
    );
    let places: HashSet<_> = seen.iter().map(|world| &world.place).collect();
    let cancels: HashSet<_> = seen.iter().filter_map(|world| world.cancel.as_ref()).collect();
    println!("place-order: {} states; cancel-order: {} states", places.len(), cancels.len());
    // Every attempt of every step, and each way to be stuck.
    assert!(places.len() > 100 && cancels.len() > 20, "{} and {}", places.len(), cancels.len());
}
