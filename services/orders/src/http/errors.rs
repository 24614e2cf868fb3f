//! Failed commands as HTTP answers: which status and code, and the path of the field at fault.

use waybill_http::ApiError;
use waybill_http::error::FieldError;
use waybill_saga::SagaError;

use crate::commands::CommandError;
use crate::commands::place_order::PlaceError;
use crate::domain::order::Refused;
use crate::domain::pricing::PricingError;

/// The order is another's, or there is none: callers are not told which.
pub(super) fn order_not_found() -> ApiError {
    ApiError::not_found("order_not_found", "you have no order with this id")
}

/// The order was rejected before the cancel came, or is past being taken back.
pub(super) fn not_cancellable(refused: &Refused) -> ApiError {
    ApiError::conflict("order_not_cancellable", refused.to_string())
}

impl From<PlaceError> for ApiError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Pricing(errors) => unpriceable(&errors),
            PlaceError::Key(error) => error,
            PlaceError::Shared(error) => Self::of_database(&error),
            PlaceError::Lost(error) => Self::internal(&error),
            PlaceError::Command(error) => error.into(),
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Store(error) | CommandError::Saga(SagaError::Database { source: error, .. }) => {
                error.into()
            }
            fault => Self::internal(&fault),
        }
    }
}

/// 422 with the code of the first fault, and a detail for each.
fn unpriceable(errors: &[PricingError]) -> ApiError {
    let details: Vec<_> = errors.iter().map(|e| FieldError::new(path(e), code(e), e.to_string())).collect();
    let (code, message) = match errors {
        [one] => (code(one), one.to_string()),
        [first, ..] => {
            (code(first), format!("{} lines can not be priced; error.details names each", errors.len()))
        }
        [] => ("unprocessable", String::new()),
    };
    ApiError { details, ..ApiError::unprocessable(code, message) }
}

fn code(error: &PricingError) -> &'static str {
    match error {
        PricingError::UnknownSku { .. } => "unknown_sku",
        PricingError::CurrencyMismatch { .. } => "currency_mismatch",
        PricingError::TotalOverflow => "total_overflow",
        PricingError::TotalZero => "total_zero",
    }
}

fn path(error: &PricingError) -> String {
    match error {
        PricingError::UnknownSku { line, .. } | PricingError::CurrencyMismatch { line, .. } => {
            format!("lines[{line}].sku")
        }
        PricingError::TotalOverflow | PricingError::TotalZero => "lines".to_owned(),
    }
}
