//! Calls to the sandbox that come at the same time, made in one statement; two of one key in two, one after the other.

use std::collections::HashSet;
use std::time::Duration;

use waybill_runtime::gather::{Bounds, Gather};

/// One statement at a time. There is room for more calls than the worker has out, its slow ones among them, and each waits
/// for as long as the worker does.
const BOUNDS: Bounds = Bounds {
    together_max: 64,
    at_once_max: 1,
    company_min: 1,
    company_wait: Duration::from_secs(10),
    waiting_max: 512,
    wait_max: Duration::ZERO,
};

/// A call that is known by a key.
pub(super) trait Call: Send + 'static {
    /// What the caller hears.
    type Answer: Send + 'static;

    /// By what the provider knows it.
    fn key(&self) -> &str;
}

/// The way in. An error is told to every caller of the statement.
pub(super) type Calls<C> = Gather<C, Result<<C as Call>::Answer, String>>;

/// Gathers calls for `statement`, which answers its calls in their order.
pub(super) fn gathered<C: Call, F>(
    statement: impl Fn(Vec<C>) -> F + Clone + Send + Sync + 'static,
) -> Calls<C>
where
    F: Future<Output = Result<Vec<C::Answer>, sqlx::Error>> + Send + 'static,
{
    Gather::new(BOUNDS, move |calls| made(calls, statement.clone()))
}

async fn made<C: Call, F>(
    calls: Vec<C>,
    statement: impl Fn(Vec<C>) -> F + Send,
) -> Vec<Result<C::Answer, String>>
where
    F: Future<Output = Result<Vec<C::Answer>, sqlx::Error>> + Send,
{
    let mut answers = Vec::new();
    let mut left: Vec<(usize, C)> = calls.into_iter().enumerate().collect();
    while !left.is_empty() {
        let mut keys = HashSet::new();
        let (now, later): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(_, call)| keys.insert(call.key().to_owned()));
        left = later;
        let (places, calls): (Vec<usize>, Vec<C>) = now.into_iter().unzip();
        match statement(calls).await {
            Ok(found) => answers.extend(places.into_iter().zip(found.into_iter().map(Ok))),
            Err(error) => answers.extend(places.into_iter().map(|place| (place, Err(error.to_string())))),
        }
    }
    answers.sort_unstable_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Numbered(&'static str, u32);

    impl Call for Numbered {
        type Answer = u32;

        fn key(&self) -> &str {
            self.0
        }
    }

    #[tokio::test]
    async fn no_key_is_twice_in_a_statement_and_each_call_has_its_own_answer() {
        let statements = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&statements);
        let statement = move |calls: Vec<Numbered>| {
            notes.lock().unwrap().push(calls.iter().map(|call| call.1).collect::<Vec<_>>());
            async move {
                if calls.iter().any(|call| call.0 == "wrong") {
                    return Err(sqlx::Error::RowNotFound);
                }
                Ok(calls.into_iter().map(|call| 10 * call.1).collect())
            }
        };
        let calls = vec![
            Numbered("a", 1),
            Numbered("b", 2),
            Numbered("a", 3),
            Numbered("wrong", 4),
            Numbered("a", 5),
        ];
        let answers = made(calls, statement).await;
        assert_eq!(*statements.lock().unwrap(), [vec![1, 2, 4], vec![3], vec![5]]);
        let told = sqlx::Error::RowNotFound.to_string();
        let wrong = || Err(told.clone());
        assert_eq!(answers, [wrong(), wrong(), Ok(30), wrong(), Ok(50)]);
    }
}
