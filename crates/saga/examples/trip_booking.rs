//! A second saga, of another trade: a trip is a hotel and a flight, paid, then ticketed. Run it on any empty Postgres database:
//! `DATABASE_URL=postgres://... cargo run -p waybill-saga --example trip_booking`

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;
use waybill_messaging::codec::CodecError;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::{Draft, Message};
use waybill_outbox::append::append;
use waybill_runtime::clock::{Clock as _, SystemClock, new_id};
use waybill_saga::{
    Compensation, Definition, Effect, Ending, Input, Outcome, Phase, Runner, Sequences, State, Step,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trip {
    id: Uuid,
    nights: u32,
}

fn command(trip: &Trip, topic: &'static str, kind: &'static str) -> Result<Draft, CodecError> {
    Ok(Draft { topic, key: trip.id.to_string(), kind, payload: trip.nights.to_string().into_bytes() })
}

fn book_trip() -> Definition<Trip> {
    let wait = Duration::from_secs(5);
    Definition::named("book-trip", 1)
        .deadline(Duration::from_secs(60))
        .compensatable(
            Step::command("hotel", |trip| command(trip, "hotel.commands", "BookHotel"), wait, 3),
            Compensation::command(|trip| command(trip, "hotel.commands", "FreeHotel"), wait, 10),
        )
        .compensatable(
            Step::command("flight", |trip| command(trip, "flight.commands", "BookFlight"), wait, 3),
            Compensation::command(|trip| command(trip, "flight.commands", "FreeFlight"), wait, 10),
        )
        .pivot(Step::command("pay", |trip| command(trip, "payments.commands", "Pay"), wait, 3))
        .retriable(Step::command("ticket", |trip| command(trip, "flight.commands", "Ticket"), wait, 10))
        .build()
}

/// Plays the participants: everything works, but paying is refused when there is no money.
fn answer(step: &'static str, phase: Phase, money: bool) -> Input {
    let outcome = match (step, money) {
        ("pay", false) => Outcome::Refused { reason: "no_money".to_owned() },
        _ => Outcome::Done,
    };
    Input::Reply { step, phase, outcome }
}

/// The last command among the effects, and how the saga ended, if it did.
fn look(effects: &[Effect]) -> (Option<(&'static str, Phase)>, Option<Ending>) {
    let (mut sent, mut ending) = (None, None);
    for effect in effects {
        match effect {
            Effect::Command { step, phase, .. } => sent = Some((*step, *phase)),
            Effect::Finished(how) => ending = Some(how.clone()),
            _ => {}
        }
    }
    (sent, ending)
}

/// Runs one trip to its end; each turn is one transaction that takes a reply and appends the next command.
pub(crate) async fn travel(pool: &PgPool, money: bool) -> Result<(State, Vec<Message>), Box<dyn Error>> {
    let runner = Runner::new("/example/trips", vec![book_trip()]);
    let trip = Trip { id: new_id(), nights: 3 };
    let cause = Cause { correlation_id: trip.id, causation_id: None, trace: None };

    let mut tx = pool.begin().await?;
    let started = runner.start(trip.id, &trip, &cause, Sequences::default(), SystemClock.now())?;
    append(&mut tx, "", &started.messages).await?;
    let (mut sent, mut told) = (look(&started.effects).0, started.messages.clone());
    runner.start_in_tx(&mut tx, &[started]).await?;
    tx.commit().await?;

    loop {
        let (step, phase) = sent.ok_or("the saga waits, but sent nothing")?;
        let mut tx = pool.begin().await?;
        let mut out = Vec::new();
        let inputs = vec![(trip.id, answer(step, phase, money), cause.clone())];
        let advanced = runner.advance(&mut tx, inputs, &mut out).await?.remove(0);
        append(&mut tx, "", &out).await?;
        tx.commit().await?;
        told.extend(out);
        let (next, ending) = look(&advanced.effects);
        if ending.is_some() {
            return Ok((advanced.state, told));
        }
        sent = next;
    }
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "the test that includes this file calls travel()")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    for migrator in [&waybill_outbox::MIGRATIONS, &waybill_saga::MIGRATIONS] {
        let migrations = migrator.migrations.to_vec().into();
        let mut own = sqlx::migrate::Migrator { migrations, ..sqlx::migrate::Migrator::DEFAULT };
        own.set_ignore_missing(true).run(&pool).await?;
    }
    for money in [true, false] {
        let (state, told) = travel(&pool, money).await?;
        let kinds: Vec<&str> = told.iter().map(|message| message.envelope.kind.as_str()).collect();
        writeln!(std::io::stdout(), "{} -> {state:?}", kinds.join(", "))?;
    }
    Ok(())
}
