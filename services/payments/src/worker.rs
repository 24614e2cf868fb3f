//! The worker: takes payments that are due, asks the provider outside any transaction, records what came of it.
//!
//! Taking puts a payment off past the call's time limit; a worker that is killed in the middle leaves it to come up
//! again, and the provider's idempotency keys make asking twice harmless.

mod seats;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use waybill_runtime::clock::Clock;
use waybill_runtime::lifecycle::Shutdown;
use waybill_runtime::pool::round;
use waybill_runtime::retry::Backoff;
use waybill_telemetry::metrics;

use crate::commands::record_outcomes::{Found, record_outcomes};
use crate::domain::outcome::Outcome;
use crate::domain::payment::{Operation, PaymentKey, State};
use crate::provider::{Authorization, Provider, ProviderError};
use crate::store::payments::{self, Kept};
use seats::{Seat, Seats};

/// Longest a call may take unless told otherwise; after it the outcome is unknown.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a taken payment is put off: the call's limit, the time to record, and room for a slow clock.
const CLAIM: Duration = Duration::from_secs(30);
/// Longest wait between looks at what is due: what this process's consumer makes due is told at once, so this is for
/// repeats, whose times are seconds, and for what another process has left.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// Wait after a look that could not be made.
const FAILURE_WAIT: Duration = Duration::from_millis(100);
/// How long the first answer waits for those that come with it: recording costs the same for one as for many.
const RECORD_WAIT: Duration = Duration::from_millis(2);
/// Tries to record a batch before it is left to come up again by itself.
const RECORD_TRIES_MAX: usize = 5;

/// Asks the provider for whatever is due.
pub struct Worker<P> {
    /// The service's database.
    pub pool: PgPool,
    /// Before topic names.
    pub topic_prefix: String,
    /// Who is asked.
    pub provider: Arc<P>,
    /// Replies are dated by it.
    pub clock: Arc<dyn Clock>,
    /// Told by the consumer when something has become due.
    pub due: Arc<Notify>,
    /// Longest a call may take, well under the half minute for which its payment is put off; see [`CALL_TIMEOUT`].
    pub call_timeout: Duration,
}

/// What a call has found, and the seat it sat on: free when the outcome is recorded.
type Seated = (Found, Seat);

impl<P: Provider> Worker<P> {
    /// Works until the shutdown is requested, then waits for the calls under way.
    pub async fn run(self, shutdown: Shutdown) {
        let seats = Seats::new();
        let mut calls: JoinSet<Seated> = JoinSet::new();
        let mut wait = Duration::ZERO;
        // There may be more due than there was room for.
        let mut full = false;
        loop {
            tokio::select! {
                Some(first) = calls.join_next() => {
                    if !calls.is_empty() {
                        tokio::time::sleep(RECORD_WAIT).await;
                    }
                    let (found, _seats) = finished(first, &mut calls);
                    self.record(&found, &shutdown).await;
                    if full {
                        wait = Duration::ZERO;
                    }
                }
                () = self.more_due(&seats, wait), if !shutdown.is_requested() => {
                    (full, wait) = self.take(&seats, &mut calls).await;
                }
                () = shutdown.requested(), if calls.is_empty() => return,
            }
        }
    }

    /// Until a call may begin, and then until something has become due, but not longer than this.
    async fn more_due(&self, seats: &Seats, wait: Duration) {
        seats.some_free().await;
        // In time and told are the same: look.
        let _told = tokio::time::timeout(wait, self.due.notified()).await;
    }

    /// Takes what is due and starts the calls; answers whether that was as much as there was room for, and how long to
    /// wait for the next look.
    async fn take(&self, seats: &Seats, calls: &mut JoinSet<Seated>) -> (bool, Duration) {
        // Nobody else takes seats: those that are free now stay free.
        let room = i64::try_from(seats.free()).unwrap_or(0);
        let taken = match round(payments::payments_take_due(&self.pool, room, CLAIM)).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "due payments could not be read: trying again"
                );
                return (false, FAILURE_WAIT);
            }
        };
        let full = i64::try_from(taken.len()).is_ok_and(|count| count >= room);
        for kept in taken {
            let (provider, timeout) = (self.provider.clone(), self.call_timeout);
            if let (Some(operation), Some(seat)) = (kept.payment.state.operation(), seats.take()) {
                let seats = seats.clone();
                calls.spawn(async move {
                    seats.sit(seat, call(provider.as_ref(), kept, operation, timeout)).await
                });
            }
        }
        (full, if full { Duration::ZERO } else { POLL_WAIT })
    }

    /// Records outcomes; when that fails for long they are left to come up again, and nothing is lost.
    async fn record(&self, found: &[Found], shutdown: &Shutdown) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        for _ in 0..RECORD_TRIES_MAX {
            match round(record_outcomes(&self.pool, &self.topic_prefix, found, self.clock.now())).await {
                Ok(_) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        outcomes = found.len(),
                        "outcomes could not be recorded: trying again"
                    );
                }
            }
            if !shutdown.sleep(backoff.next_wait()).await {
                return;
            }
        }
        tracing::error!(
            outcomes = found.len(),
            "outcomes were not recorded: the provider will be asked again"
        );
    }
}

/// Everything that has finished by now; a call that panicked is left to come up again.
fn finished(
    first: Result<Seated, tokio::task::JoinError>,
    calls: &mut JoinSet<Seated>,
) -> (Vec<Found>, Vec<Seat>) {
    let mut all = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(joined) = next {
        match joined {
            Ok(seated) => all.extend([seated]),
            Err(error) => tracing::error!(%error, "a call to the provider failed in this program"),
        }
        next = calls.try_join_next();
    }
    all
}

async fn call<P: Provider>(provider: &P, kept: Kept, operation: Operation, timeout: Duration) -> Found {
    let (key, tries) = (kept.payment.key, kept.tries);
    let answer = tokio::time::timeout(timeout, ask(provider, &kept)).await;
    let answer = answer.unwrap_or(Err(ProviderError::AnswerLost));
    let calls = metrics::counter_vec(
        "payments_provider_calls_total",
        "Calls to the payment provider by operation and outcome.",
        &["operation", "outcome"],
    );
    let (outcome, label) = match answer {
        Ok(outcome) => (outcome, "answered"),
        Err(ProviderError::Refused { reason }) => (Outcome::Refused { reason }, "refused"),
        Err(error) => {
            let trace_id =
                kept.cause.trace.as_ref().map(waybill_telemetry::trace::TraceContext::trace_id_hex);
            let correlation_id = kept.cause.correlation_id;
            tracing::warn!(%key, %error, tries, operation = operation.name(), trace_id, %correlation_id,
                "the provider has not answered: it will be asked again");
            (Outcome::Unknown, "unknown")
        }
    };
    calls.with_label_values(&[operation.name(), label]).inc();
    Found { key, operation, tries, outcome }
}

/// One question to the provider. After silence an authorization is asked for before it is made again.
async fn ask<P: Provider>(provider: &P, kept: &Kept) -> Result<Outcome, ProviderError> {
    let key: PaymentKey = kept.payment.key;
    let terms = kept.payment.terms.as_ref();
    let done = Ok(Outcome::Done);
    match (&kept.payment.state, terms) {
        (State::Authorizing, Some(terms)) => {
            let known = if kept.tries > 1 { provider.find(key).await? } else { None };
            let answer = match known {
                Some(answer) => answer,
                None => provider.authorize(key, terms).await?,
            };
            Ok(match answer {
                Authorization::Approved { reference } => Outcome::Authorized { reference },
                Authorization::Declined { reason } => Outcome::Declined { reason },
            })
        }
        (State::Voiding | State::GivingUp { .. }, _) => provider.void(key).await.and(done),
        (State::Capturing { .. }, Some(terms)) => provider.capture(key, terms).await.and(done),
        (State::Refunding { amount_minor, .. }, _) => provider.refund(key, *amount_minor).await.and(done),
        // A tombstone is never due.
        _ => Ok(Outcome::Refused { reason: "nothing_to_ask".to_owned() }),
    }
}
