//! What could not be done, as HTTP answers.

use waybill_http::ApiError;
use waybill_outbox::operate::{OperateError, Reason};
use waybill_outbox::republish::RepublishError;
use waybill_outbox::status::StatusError;
use waybill_saga::SagaError;
use waybill_saga::operate::OperateError as SagaOperateError;

/// Seconds after which a handler that could not be run may be tried again.
const RETRY_AFTER_S: u32 = 1;
/// Seconds after which the dry run that is at it has most likely ended: a handler takes milliseconds a letter.
const BUSY_RETRY_AFTER_S: u32 = 5;

/// 404, 409, 400, 503, or what the database's error says; see [`OperateError::reason`].
#[must_use]
pub fn refused(error: OperateError) -> ApiError {
    let reason = error.reason();
    match error {
        OperateError::Database(error) => error.into(),
        OperateError::Infrastructure(why) => ApiError::unavailable(why, RETRY_AFTER_S),
        OperateError::Invalid { field, why } => ApiError::field(field, "invalid", why),
        OperateError::Count { .. } => ApiError::conflict("count_differs", error.to_string()),
        OperateError::EditedMeanwhile { .. } => ApiError::conflict("edited_meanwhile", error.to_string()),
        OperateError::TooMany { .. } => ApiError::bad_request("too_many", error.to_string()),
        error => match reason {
            Reason::NotFound => ApiError::not_found("not_found", chain(&error)),
            Reason::Conflict => ApiError::conflict("wrong_state", chain(&error)),
            Reason::Invalid => ApiError::bad_request("invalid", chain(&error)),
            Reason::Busy => {
                ApiError { code: "busy", ..ApiError::unavailable(chain(&error), BUSY_RETRY_AFTER_S) }
            }
            Reason::Database => ApiError::internal(&error),
        },
    }
}

/// The same for sagas.
#[must_use]
pub fn saga_refused(error: SagaOperateError) -> ApiError {
    match error {
        SagaOperateError::Refused(error) => refused(error),
        SagaOperateError::Saga(SagaError::Database { source, .. }) => source.into(),
        SagaOperateError::Saga(error @ SagaError::Conflict { .. }) => {
            ApiError::conflict("in_progress", format!("{error}: try again"))
        }
        SagaOperateError::Saga(error) => ApiError::internal(&error),
    }
}

pub(super) fn status_refused(error: StatusError) -> ApiError {
    match error {
        StatusError::NoRelay(_) => ApiError::not_found("not_found", error.to_string()),
        StatusError::Database(error) => error.into(),
    }
}

pub(super) fn republish_refused(error: RepublishError) -> ApiError {
    match error {
        RepublishError::Database(error) => error.into(),
        RepublishError::TooMany { .. } => ApiError::bad_request("too_many", error.to_string()),
        RepublishError::BadLimit(_) => ApiError::field("limit", "out_of_range", error.to_string()),
    }
}

/// The error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_status() {
        let unknown = OperateError::Unknown { what: "replay", name: "7".to_owned() };
        assert_eq!(refused(unknown).status, 404);
        let state = OperateError::State {
            what: "replay",
            name: "7".to_owned(),
            state: "finished".to_owned(),
            wanted: "running",
        };
        let refusal = refused(state);
        assert_eq!((refusal.status.as_u16(), refusal.code), (409, "wrong_state"));
        assert_eq!(refusal.message, "replay 7 is finished, not running");
        assert_eq!(refused(OperateError::Count { expected: 1, found: 2 }).status, 409);
        let invalid = refused(OperateError::Invalid { field: "limit", why: "write a number".to_owned() });
        assert_eq!((invalid.status.as_u16(), invalid.details[0].path.as_str()), (400, "limit"));
        assert_eq!(refused(OperateError::Database(sqlx::Error::PoolTimedOut)).status, 503);
    }
}
