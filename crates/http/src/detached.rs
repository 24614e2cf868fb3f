//! Writes that run to their end although the caller hangs up.

use std::future::Future;

use tracing::Instrument as _;

use crate::context;
use crate::error::ApiError;

/// Runs `future` in a task of its own and waits for it: when the caller hangs up, or the request's time is over, the
/// waiting is dropped and the work goes on to its end.
///
/// Use it around every write: axum drops a handler whose caller is gone, and a write dropped between two statements
/// leaves a transaction for the pool to roll back although nobody refused it. The work keeps the request's span and
/// trace. It needs a bound of its own; statements of our pools have one.
///
/// # Errors
/// What `future` answers; 500 when it panics.
pub async fn run_to_end<F, T>(future: F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
    T: Send + 'static,
{
    let request = context::current();
    let work = async move {
        match request {
            Some(request) => context::scope(request, future).await,
            None => future.await,
        }
    };
    match tokio::spawn(work.in_current_span()).await {
        Ok(answer) => answer,
        Err(error) => Err(ApiError::internal(&error)),
    }
}
