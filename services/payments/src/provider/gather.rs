//! Calls that come at the same time, made in one statement: while one is on its way, those behind it gather.

use std::collections::HashSet;
use std::future::Future;

use tokio::sync::{mpsc, oneshot};

/// Calls in one statement: as many as the worker has out at a time.
const CALLS_PER_STATEMENT_MAX: usize = 64;
/// Calls that may wait for their statement; past it callers wait to be let in.
const CALLS_WAITING_MAX: usize = 256;

/// The answer's way back; an error is told to every caller of the statement.
type Reply<A> = oneshot::Sender<Result<A, String>>;

/// A call that is known by a key: two of the same key are never in one statement.
pub(super) trait Call: Send + 'static {
    /// What the caller hears.
    type Answer: Send + 'static;

    /// By what the provider knows it.
    fn key(&self) -> &str;
}

/// The way in. The task behind it ends when the last one is dropped.
#[derive(Debug)]
pub(super) struct Gather<C: Call> {
    calls: mpsc::Sender<(C, Reply<C::Answer>)>,
}

impl<C: Call> Clone for Gather<C> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone() }
    }
}

impl<C: Call> Gather<C> {
    /// Starts the task. `statement` answers its calls in their order.
    pub(super) fn start<F>(statement: impl Fn(Vec<C>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Vec<C::Answer>, sqlx::Error>> + Send + 'static,
    {
        let (calls, queue) = mpsc::channel(CALLS_WAITING_MAX);
        tokio::spawn(serve(queue, statement));
        Self { calls }
    }

    /// Makes one call.
    pub(super) async fn call(&self, call: C) -> Result<C::Answer, String> {
        let (reply, answer) = oneshot::channel();
        self.calls.send((call, reply)).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> String {
    "the sandbox has ended".to_owned()
}

async fn serve<C: Call, F>(
    mut queue: mpsc::Receiver<(C, Reply<C::Answer>)>,
    statement: impl Fn(Vec<C>) -> F + Send,
) where
    F: Future<Output = Result<Vec<C::Answer>, sqlx::Error>> + Send,
{
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() && queue.recv_many(&mut waiting, CALLS_PER_STATEMENT_MAX).await == 0 {
            return;
        }
        let mut keys = HashSet::new();
        let (now, later): (Vec<_>, Vec<_>) =
            waiting.drain(..).partition(|(call, _)| keys.insert(call.key().to_owned()));
        waiting = later;
        let (calls, replies): (Vec<C>, Vec<Reply<C::Answer>>) = now.into_iter().unzip();
        match statement(calls).await {
            // Nobody waits any more when the caller's time was up.
            Ok(answers) => {
                replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(Ok(answer))))
            }
            Err(error) => {
                let why = error.to_string();
                replies.into_iter().for_each(|reply| drop(reply.send(Err(why.clone()))));
            }
        }
    }
}
