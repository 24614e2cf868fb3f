//! Writes that run to their end although the caller hangs up.

use std::future::Future;
use std::time::Duration;

use tracing::Instrument as _;

use crate::context;
use crate::error::ApiError;

/// No work takes longer: more than any listener waits for its answer (the operators' 75 s).
const WORK_TIME_MAX: Duration = Duration::from_secs(90);

/// Seconds after which a caller may look again.
const RETRY_AFTER_S: u32 = 1;

/// Runs `future` in a task of its own and waits for it: when the caller hangs up, or the request's time is over, the
/// waiting is dropped and the work goes on to its end.
///
/// Use it around every write: axum drops a handler whose caller is gone, and a write dropped between two statements
/// leaves a transaction for the pool to roll back although nobody refused it. The work keeps the request's span and
/// trace. It is cut off after a minute and a half: a server that hangs, or a connection that the network lost, would keep it,
/// and a place in a pool, for a quarter of an hour. A command that others wait behind has a shorter bound of its own
/// (`waybill_runtime::pool::round`).
///
/// # Errors
/// What `future` answers; 503 when it is cut off, for then nobody knows whether it was done; 500 when it panics.
pub async fn run_to_end<F, T>(future: F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
    T: Send + 'static,
{
    run_within(WORK_TIME_MAX, future).await
}

async fn run_within<F, T>(limit: Duration, future: F) -> Result<T, ApiError>
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
    match tokio::spawn(tokio::time::timeout(limit, work).in_current_span()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(cut_off(limit)),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

fn cut_off(limit: Duration) -> ApiError {
    tracing::warn!(limit_ms = limit.as_millis(), "a request's work was cut off: does the database hang?");
    ApiError::unavailable("it took too long, and may have been done: look, or try again", RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn work_without_an_end_is_cut_off_and_what_it_held_is_dropped() {
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        let endless = async move {
            std::future::pending::<()>().await;
            drop(holds);
            Ok(())
        };
        let cut_off = run_within(Duration::from_millis(1), endless).await.unwrap_err();
        assert_eq!((cut_off.code, cut_off.retry_after_s), ("unavailable", Some(RETRY_AFTER_S)));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
