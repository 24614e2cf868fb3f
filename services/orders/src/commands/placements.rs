//! Placements that come together are one statement and one commit: what a transaction costs by itself, they share.
//!
//! While a statement is on its way, the orders behind it gather; a lone order goes at once. Each hears its own outcome.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use waybill_http::ApiError;
use waybill_runtime::gather::{Bounds, Gather, GatherError};
use waybill_runtime::pool::{self, Statements};

use super::CommandError;
use super::place_order::PlaceError;
use crate::store::placement::{Placement, Placing, orders_place};

/// Orders in one statement: what they share is a small part of it by then, and it takes some 10 ms.
const TOGETHER_MAX: usize = 64;
/// Orders that are worth a statement beside those on their way: what they share is half of what one alone costs.
const COMPANY_MIN: usize = 8;
/// How long an order waits for so many: a part of what its statement takes. Under load so many come within it; without,
/// nobody waits long for company that does not come.
const COMPANY_WAIT: Duration = Duration::from_millis(1);
/// Orders that wait for their statement: as many as the listener has connections, each of which holds one.
const WAITING_MAX: usize = 4_096;

/// The way in, shared by all requests of this process.
#[derive(Debug, Clone)]
pub struct Placements(Gather<Arc<Placement>, Outcome>);

/// An error of a statement is told to all whose statement it was.
type Outcome = Result<Placing, Arc<sqlx::Error>>;

impl Placements {
    /// Over a pool of so many connections: as many statements are on their way at most.
    #[must_use]
    pub fn new(statements: Statements, connections: u32) -> Self {
        let bounds = Bounds {
            together_max: TOGETHER_MAX,
            at_once_max: usize::try_from(connections).unwrap_or(usize::MAX),
            company_min: COMPANY_MIN,
            company_wait: COMPANY_WAIT,
            waiting_max: WAITING_MAX,
            // As long as one waits for a connection: who waits here waits for one of those.
            wait_max: pool::ACQUIRE_TIMEOUT,
        };
        Self(Gather::new(bounds, move |placements: Vec<Arc<Placement>>| {
            let statements = statements.clone();
            async move { place(&statements, &placements).await }
        }))
    }

    /// How many orders wait for their statement.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// Writes one order, with those that come at the same time.
    ///
    /// # Errors
    /// [`PlaceError`]: nothing of it is written, or, when the connection is lost, nobody knows; the key tells.
    pub(super) async fn place(&self, placement: Arc<Placement>) -> Result<Placing, PlaceError> {
        match self.0.call(placement).await {
            Ok(outcome) => outcome.map_err(PlaceError::Shared),
            // To the caller it is the same: no connection was to be had.
            Err(GatherError::Full | GatherError::TooLate) => {
                Err(CommandError::from(sqlx::Error::PoolTimedOut).into())
            }
            Err(lost @ GatherError::Lost) => Err(PlaceError::Lost(lost)),
        }
    }
}

/// One statement; when one of the orders is at fault, one for each, so that only that one fails.
async fn place(statements: &Statements, placements: &[Arc<Placement>]) -> Vec<Outcome> {
    let error = match orders_place(statements, placements).await {
        Ok(placings) => return placings.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    if placements.len() > 1 && may_be_of_one(&error) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            orders = placements.len(),
            "orders could not be placed together: each is placed alone"
        );
        return join_all(placements.iter().map(|placement| alone(statements, placement))).await;
    }
    let error = Arc::new(error);
    placements.iter().map(|_| Err(Arc::clone(&error))).collect()
}

async fn alone(statements: &Statements, placement: &Arc<Placement>) -> Outcome {
    let placings = orders_place(statements, std::slice::from_ref(placement)).await?;
    placings.first().copied().ok_or_else(|| Arc::new(sqlx::Error::RowNotFound))
}

/// Whether the others may succeed without the one at fault: one whose key is held elsewhere, whose rows met another's, or
/// whose data are refused. A table that is locked, or a server that is away, is so for all of them.
fn may_be_of_one(error: &sqlx::Error) -> bool {
    match error.as_database_error().and_then(|error| error.code()).as_deref() {
        Some(pool::LOCK_NOT_AVAILABLE) => ApiError::of_database(error) == ApiError::key_in_progress(),
        _ => pool::is_conflict(error) || !pool::is_transient(error),
    }
}
