//! Whose story a log line tells, where no span can say it: among the messages of one batch.
//!
//! A span for each message would be made whether or not anything is logged. A [`Story`] is a copy of three ids, looked at
//! only when a line is written.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;

use uuid::Uuid;

use crate::trace::{self, TraceContext};

/// The ids that log lines carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Story {
    trace_id: Option<[u8; 16]>,
    correlation_id: Uuid,
    message_id: Option<Uuid>,
}

thread_local! {
    /// What this thread tells just now; never kept over an await, see [`Story::follow`].
    static CURRENT: Cell<Option<Story>> = const { Cell::new(None) };
}

impl Story {
    /// The story of this correlation, its trace, and the message it is about.
    #[must_use]
    pub fn new(correlation_id: Uuid, trace: Option<&TraceContext>, message_id: Option<Uuid>) -> Self {
        Self { trace_id: trace.map(|trace| trace.trace_id), correlation_id, message_id }
    }

    /// The story that lines of this thread carry now; the innermost one.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// Every line that `work` logs carries this story's ids, before those of spans around it.
    pub fn tell<T>(self, work: impl FnOnce() -> T) -> T {
        // Set back also when `work` panics.
        let _before = Before(CURRENT.replace(Some(self)));
        work()
    }

    /// As [`Self::tell`], for the whole of a future, whatever thread polls it.
    pub async fn follow<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| self.tell(|| future.as_mut().poll(context))).await
    }

    /// The fields of a line: names and values.
    pub(crate) fn fields(self) -> impl Iterator<Item = (&'static str, String)> {
        let trace_id = self.trace_id.map(|id| ("trace_id", trace::hex(&id)));
        let correlation_id = ("correlation_id", self.correlation_id.to_string());
        let message_id = self.message_id.map(|id| ("message_id", id.to_string()));
        trace_id.into_iter().chain([correlation_id]).chain(message_id)
    }
}

struct Before(Option<Story>);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(of: u128) -> Story {
        Story::new(Uuid::from_u128(of), Some(&TraceContext::new_root()), None)
    }

    #[test]
    fn the_innermost_story_is_told_and_the_one_before_goes_on() {
        assert_eq!(Story::current(), None);
        story(1).tell(|| {
            let (outer, inner) = (Story::current(), story(2));
            inner.tell(|| assert_eq!(Story::current(), Some(inner)));
            assert_eq!(Story::current(), outer);
        });
        let panicked = std::panic::catch_unwind(|| story(3).tell(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(Story::current(), None, "also after a panic");
    }

    #[tokio::test]
    async fn a_future_tells_its_own_story_between_its_waits() {
        let (one, other) = (story(1), story(2));
        let telling = |story: Story| {
            story.follow(async move {
                for _ in 0..3 {
                    assert_eq!(Story::current(), Some(story));
                    tokio::task::yield_now().await;
                }
            })
        };
        tokio::join!(telling(one), telling(other));
        assert_eq!(Story::current(), None);
    }
}
