//! The example saga runs as it is printed.

use waybill_saga::{Ending, State};
use waybill_testkit::TestDatabase;

#[path = "../../examples/trip_booking.rs"]
mod trip_booking;

#[tokio::test]
async fn a_trip_is_booked_or_taken_back() {
    let database = TestDatabase::create("saga_trip").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS, &waybill_saga::MIGRATIONS]).await;
    let kinds = |told: Vec<waybill_messaging::message::Message>| {
        told.into_iter().map(|message| message.envelope.kind).collect::<Vec<_>>().join(" ")
    };
    let (state, told) = trip_booking::travel(&database.pool, true).await.unwrap();
    assert_eq!(state, State::Ended(Ending::Completed));
    assert_eq!(kinds(told), "BookHotel BookFlight Pay Ticket");
    let (state, told) = trip_booking::travel(&database.pool, false).await.unwrap();
    assert_eq!(state, State::Ended(Ending::Compensated { reason: "no_money".to_owned() }));
    assert_eq!(kinds(told), "BookHotel BookFlight Pay FreeFlight FreeHotel");
}
