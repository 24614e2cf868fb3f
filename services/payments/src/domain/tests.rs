//! The payment under arbitrary commands, repeats and provider answers: what is told is true, and stays true.

use proptest::prelude::*;
use waybill_events::{CustomerId, OrderId};

use super::obey::{Breach, PaymentCommand, obey};
use super::outcome::{Outcome, TRIES_MAX, apply, delay_ms};
use super::payment::{Operation, Payment, PaymentKey, Reply, Schedule, State, Terms};

fn key() -> PaymentKey {
    PaymentKey { order_id: OrderId::from_uuid(uuid::Uuid::from_u128(7)), attempt: 1 }
}

fn terms() -> Terms {
    Terms {
        customer_id: CustomerId::from_uuid(uuid::Uuid::from_u128(8)),
        amount_minor: 1_999,
        currency: "EUR".parse().unwrap(),
        token: "tok_approve".to_owned(),
    }
}

/// What happens to a payment: a command, or the provider's answer to whatever is being asked.
#[derive(Debug, Clone)]
enum Event {
    Command(PaymentCommand),
    Answer(bool),
    Silence { tries: i32 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        Just(Event::Command(PaymentCommand::Authorize(terms()))),
        Just(Event::Command(PaymentCommand::Void)),
        Just(Event::Command(PaymentCommand::Capture)),
        Just(Event::Command(PaymentCommand::Refund { amount_minor: 1_999 })),
        any::<bool>().prop_map(Event::Answer),
        (1..=TRIES_MAX).prop_map(|tries| Event::Silence { tries }),
    ];
    proptest::collection::vec(event, 0..40)
}

/// A provider that keeps its contract, seen from outside: what it holds and has taken.
#[derive(Default)]
struct Ledger {
    decided: Option<bool>,
    voided: bool,
    captured: bool,
    refunded: bool,
}

impl Ledger {
    fn answer(&mut self, operation: Operation, approve: bool) -> Outcome {
        match operation {
            Operation::Authorize => {
                let approved = *self.decided.get_or_insert(approve && !self.voided);
                if approved && !self.voided {
                    Outcome::Authorized { reference: "r".to_owned() }
                } else {
                    Outcome::Declined { reason: "card_declined".to_owned() }
                }
            }
            Operation::Void => {
                assert!(!self.captured, "nothing captured is voided");
                self.voided = true;
                Outcome::Done
            }
            Operation::Capture => {
                assert!(self.decided == Some(true) && !self.voided, "only what is held is captured");
                self.captured = true;
                Outcome::Done
            }
            Operation::Refund => {
                assert!(self.captured, "only what was captured is refunded");
                self.refunded = true;
                Outcome::Done
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_told_is_what_the_provider_holds(events in events()) {
        let (mut payment, mut ledger, mut told): (Option<Payment>, _, Vec<Reply>) = (None, Ledger::default(), Vec::new());
        for event in events {
            let transition = match (&event, &payment) {
                (Event::Command(command), now) => obey(key(), now.as_ref(), command).ok(),
                (Event::Answer(approve), Some(now)) => now.state.operation().and_then(|operation| {
                    let outcome = ledger.answer(operation, *approve);
                    apply(now, operation, &outcome, 1)
                }),
                (Event::Silence { tries }, Some(now)) => {
                    now.state.operation().and_then(|operation| apply(now, operation, &Outcome::Unknown, *tries))
                }
                _ => None,
            };
            let Some(transition) = transition else { continue };
            match &transition.reply {
                Some(Reply::Authorized) => prop_assert!(ledger.decided == Some(true)),
                Some(Reply::Captured) => prop_assert!(ledger.captured),
                Some(Reply::Refunded { .. }) => prop_assert!(ledger.refunded),
                Some(Reply::Voided) => prop_assert!(!ledger.captured),
                // "Failed" of an authorization means that nothing is held and nothing will be.
                Some(Reply::Failed { operation: Operation::Authorize, .. }) => prop_assert!(ledger.voided),
                _ => {}
            }
            told.extend(transition.reply);
            // A payment that waits for the provider is scheduled, or was given up and told so.
            if transition.payment.state.operation().is_none() {
                prop_assert!(matches!(transition.schedule, Schedule::Never | Schedule::Unchanged));
            }
            payment = Some(transition.payment);
        }
        let voided = told.contains(&Reply::Voided);
        let captured = told.contains(&Reply::Captured);
        prop_assert!(!(voided && captured), "{told:?}");
    }

    #[test]
    fn a_repeated_command_changes_nothing(events in events(), repeat in 0_usize..40) {
        let mut payment: Option<Payment> = None;
        let mut ledger = Ledger::default();
        for (number, event) in events.into_iter().enumerate() {
            match (&event, &payment) {
                (Event::Command(command), now) => {
                    let Ok(first) = obey(key(), now.as_ref(), command) else { continue };
                    if number == repeat {
                        let again = obey(key(), Some(&first.payment), command).unwrap();
                        prop_assert_eq!(&again.payment, &first.payment);
                        prop_assert!(matches!(again.schedule, Schedule::Unchanged | Schedule::Resume | Schedule::Never));
                    }
                    payment = Some(first.payment);
                }
                (Event::Answer(approve), Some(now)) => {
                    if let Some(operation) = now.state.operation() {
                        let outcome = ledger.answer(operation, *approve);
                        payment = apply(now, operation, &outcome, 1).map(|t| t.payment).or(payment);
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_void_that_comes_first_declines_the_authorization() {
    let tombstone = obey(key(), None, &PaymentCommand::Void).unwrap();
    assert_eq!(tombstone.reply, Some(Reply::Voided));
    let late = obey(key(), Some(&tombstone.payment), &PaymentCommand::Authorize(terms())).unwrap();
    assert_eq!(late.reply, Some(Reply::Declined { reason: "voided".to_owned() }));
    assert_eq!(late.payment.state, State::Voided);
}

#[test]
fn an_outcome_of_something_else_is_no_news() {
    let voiding = Payment { key: key(), terms: Some(terms()), state: State::Voiding };
    let late = Outcome::Authorized { reference: "r".to_owned() };
    assert_eq!(apply(&voiding, Operation::Authorize, &late, 1), None);
}

#[test]
fn an_authorization_without_answer_is_voided_before_it_is_called_failed() {
    let asked = obey(key(), None, &PaymentCommand::Authorize(terms())).unwrap();
    let silent = apply(&asked.payment, Operation::Authorize, &Outcome::Unknown, TRIES_MAX - 1).unwrap();
    assert_eq!(silent.schedule, Schedule::Later { tries: TRIES_MAX - 1 });
    let given_up = apply(&asked.payment, Operation::Authorize, &Outcome::Unknown, TRIES_MAX).unwrap();
    assert_eq!((given_up.reply, given_up.schedule), (None, Schedule::Now));
    let voided = apply(&given_up.payment, Operation::Void, &Outcome::Done, 1).unwrap();
    assert!(matches!(voided.reply, Some(Reply::Failed { operation: Operation::Authorize, .. })));
}

#[test]
fn a_capture_that_was_given_up_begins_again_with_the_next_command() {
    let capturing = State::Capturing { reference: "r".to_owned() };
    let capturing = Payment { key: key(), terms: Some(terms()), state: capturing };
    let given_up = apply(&capturing, Operation::Capture, &Outcome::Unknown, TRIES_MAX).unwrap();
    assert!(matches!(given_up.reply, Some(Reply::Failed { operation: Operation::Capture, .. })));
    assert_eq!(given_up.schedule, Schedule::Never);
    let again = obey(key(), Some(&given_up.payment), &PaymentCommand::Capture).unwrap();
    assert_eq!((again.reply, again.schedule), (None, Schedule::Resume));
}

#[test]
fn commands_out_of_turn_are_refused() {
    let captured = State::Captured { reference: "r".to_owned() };
    let captured = Payment { key: key(), terms: Some(terms()), state: captured };
    for (now, command, class) in [
        (None, PaymentCommand::Capture, "out_of_turn"),
        (None, PaymentCommand::Refund { amount_minor: 1 }, "out_of_turn"),
        (Some(&captured), PaymentCommand::Void, "out_of_turn"),
        (Some(&captured), PaymentCommand::Refund { amount_minor: 2_000 }, "refund_amount"),
        (Some(&captured), PaymentCommand::Refund { amount_minor: 0 }, "refund_amount"),
        (
            Some(&captured),
            PaymentCommand::Authorize(Terms { amount_minor: 1, ..terms() }),
            "conflicting_command",
        ),
    ] {
        let breach = obey(key(), now, &command).unwrap_err();
        assert_eq!(Breach::class(&breach), class, "{command:?}");
    }
}

#[test]
fn waits_double_up_to_half_a_minute() {
    let waits: Vec<i64> = (1..=TRIES_MAX).map(delay_ms).collect();
    assert_eq!(&waits[..4], [200, 400, 800, 1_600]);
    assert_eq!(waits.last(), Some(&30_000));
    assert_eq!(delay_ms(0), 200);
}
