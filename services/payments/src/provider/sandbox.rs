//! The sandbox provider: decides by the payment token, and remembers keys in tables of its own as a real one does.
//!
//! | token | what happens |
//! |---|---|
//! | `tok_approve` | approved |
//! | `tok_decline` | declined, `card_declined` |
//! | `tok_timeout_once` | the first call times out without effect, the next is approved |
//! | `tok_unknown` | approved, but every answer to the call is lost: only asking tells |
//! | `tok_fail_N` | the first N calls (at most 1,000) are not taken, then approved |
//! | `tok_slow_MS` | approved after MS milliseconds (at most 60,000), also when the caller has hung up meanwhile |
//! | any other | declined, `unknown_token` |

use std::time::Duration;

use sqlx::PgPool;
use waybill_runtime::gather::GatherError;

use super::gather::{Call, Calls, gathered};
use super::under_way::{TooMany, UnderWay};
use super::{Authorization, Provider, ProviderError};
use crate::domain::payment::{PaymentKey, Terms};
use crate::store::sandbox::{self, AuthorizationCall, AuthorizationRow, CaptureCall};

/// Longest that `tok_slow_MS` waits: longer than any caller does.
const SLOW_MS_MAX: u64 = 60_000;
/// Most calls that `tok_fail_N` leaves untaken.
const FAIL_CALLS_MAX: i32 = 1_000;

/// A provider for development and tests; its state survives restarts.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pool: PgPool,
    authorizations: Calls<AuthorizationCall>,
    captures: Calls<CaptureCall>,
    slow: UnderWay,
}

impl Call for AuthorizationCall {
    type Answer = AuthorizationRow;

    fn key(&self) -> &str {
        &self.key
    }
}

impl Call for CaptureCall {
    type Answer = bool;

    fn key(&self) -> &str {
        &self.key
    }
}

/// What a token stands for.
#[derive(Debug, PartialEq, Eq)]
enum Behaviour {
    Approve,
    Decline(&'static str),
    TimeoutOnce,
    AnswerLost,
    Fail { calls: i32 },
    Slow(Duration),
}

impl Behaviour {
    fn of(token: &str) -> Self {
        match token {
            "tok_approve" => return Self::Approve,
            "tok_decline" => return Self::Decline("card_declined"),
            "tok_timeout_once" => return Self::TimeoutOnce,
            "tok_unknown" => return Self::AnswerLost,
            _ => {}
        }
        if let Some(calls) =
            token.strip_prefix("tok_fail_").and_then(|n| n.parse::<i32>().ok()).filter(|n| *n >= 0)
        {
            return Self::Fail { calls: calls.min(FAIL_CALLS_MAX) };
        }
        if let Some(ms) = token.strip_prefix("tok_slow_").and_then(|ms| ms.parse::<u64>().ok()) {
            return Self::Slow(Duration::from_millis(ms.min(SLOW_MS_MAX)));
        }
        Self::Decline("unknown_token")
    }

    /// How many calls come to nothing before one counts.
    fn calls_without_effect(&self) -> i32 {
        match self {
            Self::TimeoutOnce => 1,
            Self::Fail { calls } => *calls,
            _ => 0,
        }
    }
}

impl Sandbox {
    /// A sandbox that keeps its tables in this database. Calls that every order makes are gathered.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let own = pool.clone();
        let authorizations = gathered(move |calls: Vec<AuthorizationCall>| {
            let pool = own.clone();
            async move { sandbox::authorizations_call(&pool, &calls).await }
        });
        let own = pool.clone();
        let captures = gathered(move |calls: Vec<CaptureCall>| {
            let pool = own.clone();
            async move { sandbox::authorizations_capture(&pool, &calls).await }
        });
        Self { pool, authorizations, captures, slow: UnderWay::default() }
    }
}

impl Sandbox {
    /// Decides later, as a provider does that goes on with what a caller no longer waits for.
    async fn authorize_slowly(
        &self,
        call: AuthorizationCall,
        time: Duration,
    ) -> Result<AuthorizationRow, ProviderError> {
        let (authorizations, key) = (self.authorizations.clone(), call.key.clone());
        let work = || async move {
            tokio::time::sleep(time).await;
            // Who waits, or asks later, finds whether it was decided.
            let _decided = authorizations.call(call).await;
        };
        let ended = self.slow.wait(&key, work).await;
        ended.map_err(|TooMany| ProviderError::Unavailable { why: "too many slow calls".to_owned() })?;
        let row = sandbox::authorization_find(&self.pool, &key).await.map_err(|error| away(&error))?;
        row.ok_or_else(|| ProviderError::Unavailable { why: "the sandbox could not decide".to_owned() })
    }
}

/// To the caller a provider's own trouble is silence.
fn away(error: &sqlx::Error) -> ProviderError {
    ProviderError::Unavailable { why: error.to_string() }
}

fn answer<A>(called: Result<Result<A, String>, GatherError>) -> Result<A, ProviderError> {
    let why = match called {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(why)) => why,
        Err(error) => error.to_string(),
    };
    Err(ProviderError::Unavailable { why })
}

fn decided(row: AuthorizationRow) -> Option<Authorization> {
    match row.state.as_str() {
        "approved" => Some(Authorization::Approved { reference: row.reference }),
        "declined" => Some(Authorization::Declined { reason: row.reason.unwrap_or_default() }),
        "voided" => Some(Authorization::Declined { reason: "voided".to_owned() }),
        _ => None,
    }
}

impl Provider for Sandbox {
    async fn authorize(&self, key: PaymentKey, terms: &Terms) -> Result<Authorization, ProviderError> {
        let behaviour = Behaviour::of(&terms.token);
        let reason = if let Behaviour::Decline(reason) = behaviour { Some(reason) } else { None };
        let skip = behaviour.calls_without_effect();
        let call = AuthorizationCall { key: key.to_string(), amount_minor: terms.amount_minor, reason, skip };
        let row = match behaviour {
            Behaviour::Slow(time) => self.authorize_slowly(call, time).await?,
            _ => answer(self.authorizations.call(call).await)?,
        };
        match (decided(row), behaviour) {
            (_, Behaviour::AnswerLost) | (None, Behaviour::TimeoutOnce) => Err(ProviderError::AnswerLost),
            (Some(authorization), _) => Ok(authorization),
            (None, _) => Err(ProviderError::Unavailable { why: "the token asks for failures".to_owned() }),
        }
    }

    async fn find(&self, key: PaymentKey) -> Result<Option<Authorization>, ProviderError> {
        let row =
            sandbox::authorization_find(&self.pool, &key.to_string()).await.map_err(|error| away(&error))?;
        Ok(row.and_then(decided))
    }

    async fn void(&self, key: PaymentKey) -> Result<(), ProviderError> {
        let done = sandbox::authorization_void(&self.pool, &key.to_string()).await;
        accepted(done, "already_captured")
    }

    async fn capture(&self, key: PaymentKey, terms: &Terms) -> Result<(), ProviderError> {
        let call = CaptureCall { key: key.to_string(), amount_minor: terms.amount_minor };
        accepted(Ok(answer(self.captures.call(call).await)?), "nothing_to_capture")
    }

    async fn refund(&self, key: PaymentKey, amount_minor: i64) -> Result<(), ProviderError> {
        let done = sandbox::authorization_refund(&self.pool, &key.to_string(), amount_minor).await;
        accepted(done, "nothing_to_refund")
    }
}

fn accepted(done: Result<bool, sqlx::Error>, reason: &str) -> Result<(), ProviderError> {
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(ProviderError::Refused { reason: reason.to_owned() }),
        Err(error) => Err(away(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_one_behaviour() {
        for (token, behaviour) in [
            ("tok_approve", Behaviour::Approve),
            ("tok_decline", Behaviour::Decline("card_declined")),
            ("tok_timeout_once", Behaviour::TimeoutOnce),
            ("tok_unknown", Behaviour::AnswerLost),
            ("tok_fail_3", Behaviour::Fail { calls: 3 }),
            ("tok_fail_99999", Behaviour::Fail { calls: FAIL_CALLS_MAX }),
            ("tok_slow_250", Behaviour::Slow(Duration::from_millis(250))),
            ("tok_slow_9999999", Behaviour::Slow(Duration::from_millis(SLOW_MS_MAX))),
            ("tok_fail_-1", Behaviour::Decline("unknown_token")),
            ("tok_slow_", Behaviour::Decline("unknown_token")),
            ("4242", Behaviour::Decline("unknown_token")),
        ] {
            assert_eq!(Behaviour::of(token), behaviour, "{token}");
        }
    }
}
