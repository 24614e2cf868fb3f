//! This service's sagas as the operators' API reaches them.

use uuid::Uuid;
use waybill_host::operator::{SagaDesk, SagaFuture, saga_refused};
use waybill_http::ApiError;
use waybill_outbox::operate::Change;
use waybill_saga::Verb;

use crate::commands::Context;
use crate::commands::operate_sagas::{self, OperateSagaError};

/// Both sagas.
#[derive(Clone)]
pub struct OrderSagas(pub Context);

impl SagaDesk for OrderSagas {
    fn names(&self) -> &'static [&'static str] {
        &operate_sagas::SAGAS
    }

    fn operate<'a>(&'a self, saga: &'a str, key: Uuid, verb: Verb, change: &'a Change) -> SagaFuture<'a> {
        let context = &self.0;
        Box::pin(async move {
            let operated = match verb {
                Verb::Retry => operate_sagas::retry(context, saga, key, change).await,
                Verb::Skip => operate_sagas::skip(context, saga, key, change).await,
                Verb::Abandon => operate_sagas::abandon(context, saga, key, change).await,
            };
            operated.map_err(ApiError::from)
        })
    }
}

impl From<OperateSagaError> for ApiError {
    fn from(error: OperateSagaError) -> Self {
        match error {
            OperateSagaError::Operate(error) => saga_refused(error),
            OperateSagaError::Command(error) => error.into(),
        }
    }
}
