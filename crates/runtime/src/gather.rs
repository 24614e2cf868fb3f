//! Calls that come at the same time, done together: while some are on their way, those behind them gather.
//!
//! A lone call goes at once. Those that come while it is on its way wait for company: they go when it has ended, when enough
//! of them wait, or when one has waited for long enough, whichever is first; as much is on its way at once as may. So the work grows with the load, an idle system's
//! calls are as quick as without gathering, and work that hangs holds nobody up for longer than that.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How many calls go together, how many pieces of work are on their way, how long and with how many others a call waits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Calls in one piece of work.
    pub together_max: usize,
    /// Pieces of work at a time.
    pub at_once_max: usize,
    /// So many calls begin a piece of work beside those on their way.
    pub company_min: usize,
    /// A call that has waited so long begins one with those that wait.
    pub company_wait: Duration,
    /// Calls that wait to go.
    pub waiting_max: usize,
    /// How long a call waits to go when as much is on its way as may.
    pub wait_max: Duration,
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// As many wait as may: it was not made.
    #[error("too many calls wait")]
    Full,
    /// It waited for as long as it may: it was not made.
    #[error("the call waited too long for those before it")]
    TooLate,
    /// The work panicked, or left this call unanswered: whether it was made is not known.
    #[error("the call's work ended without an answer")]
    Lost,
}

/// Gathers calls of type `T` and answers each with an `R`. Clones are the same one.
///
/// A caller that stops waiting takes nothing back: its call is made like the others, and nobody hears the answer.
pub struct Gather<T, R> {
    shared: Arc<Shared<T, R>>,
}

struct Shared<T, R> {
    bounds: Bounds,
    queue: Mutex<Queue<T, R>>,
    work: Box<dyn Fn(Vec<T>) -> BoxFuture<'static, Vec<R>> + Send + Sync>,
}

struct Queue<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    next_ticket: u64,
    on_their_way: usize,
}

struct Waiting<T, R> {
    ticket: u64,
    since: Instant,
    call: T,
    reply: oneshot::Sender<R>,
}

/// One piece of work: its calls, and where each is answered.
type Piece<T, R> = (Vec<T>, Vec<oneshot::Sender<R>>);

impl<T: Send + 'static, R: Send + 'static> Gather<T, R> {
    /// `work` does several calls at once and answers them in their order.
    pub fn new<F>(bounds: Bounds, work: impl Fn(Vec<T>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<R>> + Send + 'static,
    {
        let queue = Queue { waiting: VecDeque::new(), next_ticket: 0, on_their_way: 0 };
        let work = Box::new(move |calls| work(calls).boxed());
        Self { shared: Arc::new(Shared { bounds, queue: Mutex::new(queue), work }) }
    }

    /// Makes one call: at once, or with those that wait too.
    ///
    /// # Errors
    /// [`GatherError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn call(&self, call: T) -> Result<R, GatherError> {
        let Bounds { company_wait, wait_max, .. } = self.shared.bounds;
        let (reply, mut answer) = oneshot::channel();
        let ticket = self.enter(call, reply)?;
        if let Ok(answered) = tokio::time::timeout(company_wait, &mut answer).await {
            return answered.map_err(|_| GatherError::Lost);
        }
        self.begin();
        let answered = match tokio::time::timeout(wait_max, &mut answer).await {
            Ok(answered) => answered,
            Err(_) if self.shared.queue().withdraw(ticket) => return Err(GatherError::TooLate),
            // On its way: that ends by itself.
            Err(_) => answer.await,
        };
        answered.map_err(|_| GatherError::Lost)
    }

    /// How many wait to go.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.queue().waiting.len()
    }

    /// Waits behind the others, and goes if it need not wait.
    fn enter(&self, call: T, reply: oneshot::Sender<R>) -> Result<u64, GatherError> {
        let ticket = {
            let mut queue = self.shared.queue();
            if queue.waiting.len() >= self.shared.bounds.waiting_max {
                return Err(GatherError::Full);
            }
            let ticket = queue.next_ticket;
            queue.next_ticket += 1;
            queue.waiting.push_back(Waiting { ticket, since: Instant::now(), call, reply });
            ticket
        };
        self.begin();
        Ok(ticket)
    }

    /// Begins a piece of work with those that wait, if there may be one more.
    fn begin(&self) {
        let first = self.shared.queue().next(&self.shared.bounds);
        if let Some(first) = first {
            tokio::spawn(Arc::clone(&self.shared).go(first));
        }
    }
}

impl<T, R> Queue<T, R> {
    /// The next piece of work, which is then on its way: when there may be one more and those that wait need wait no longer.
    fn next(&mut self, bounds: &Bounds) -> Option<Piece<T, R>> {
        (self.on_their_way < bounds.at_once_max && self.is_due(bounds)).then(|| {
            self.on_their_way += 1;
            let count = self.waiting.len().min(bounds.together_max);
            self.waiting.drain(..count).map(|waiting| (waiting.call, waiting.reply)).unzip()
        })
    }

    /// Whether those that wait go: nothing is on its way, they are enough, or the first has waited for long enough.
    fn is_due(&self, bounds: &Bounds) -> bool {
        self.waiting.front().is_some_and(|first| {
            self.on_their_way == 0
                || self.waiting.len() >= bounds.company_min
                || first.since.elapsed() >= bounds.company_wait
        })
    }

    /// Where the call waits, unless it is on its way.
    fn place(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
    }

    /// Whether the call still waited: then it is made no more.
    fn withdraw(&mut self, ticket: u64) -> bool {
        self.place(ticket).is_some_and(|place| self.waiting.remove(place).is_some())
    }
}

impl<T: Send + 'static, R: Send + 'static> Shared<T, R> {
    fn queue(&self) -> MutexGuard<'_, Queue<T, R>> {
        // Each change is whole: a panic elsewhere while it was held leaves no half of one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One piece of work after the other, while there are calls for it.
    async fn go(self: Arc<Self>, first: Piece<T, R>) {
        let mut next = Some(first);
        while let Some((calls, replies)) = next {
            // What panics is reported by the runtime's hook; those behind it are not to wait for nothing.
            let work = AssertUnwindSafe(async { (self.work)(calls).await }).catch_unwind();
            let answers = work.await.unwrap_or_default();
            for (reply, answer) in replies.into_iter().zip(answers) {
                // Whoever does not wait any more hears nothing.
                drop(reply.send(answer));
            }
            next = self.go_on();
        }
    }

    /// What a task goes on with whose work has ended. The last one leaves nobody waiting.
    fn go_on(&self) -> Option<Piece<T, R>> {
        let mut queue = self.queue();
        queue.on_their_way -= 1;
        queue.next(&self.bounds)
    }
}

impl<T, R> Clone for Gather<T, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T, R> fmt::Debug for Gather<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("bounds", &self.shared.bounds).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(3_600);
    const BOUNDS: Bounds = Bounds {
        together_max: 3,
        at_once_max: 1,
        company_min: 1,
        company_wait: LONG,
        waiting_max: 5,
        wait_max: LONG,
    };

    /// Work that notes which calls came together and waits for a permit each time; its answers are ten times the calls.
    #[derive(Clone)]
    struct Gated {
        gather: Gather<u32, u32>,
        gate: Arc<Semaphore>,
        made: Arc<Mutex<Vec<Vec<u32>>>>,
    }

    impl Gated {
        fn new(bounds: Bounds) -> Self {
            let (gate, made) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
            let (at, notes) = (Arc::clone(&gate), Arc::clone(&made));
            let gather = Gather::new(bounds, move |calls: Vec<u32>| {
                let at = Arc::clone(&at);
                notes.lock().unwrap().push(calls.clone());
                async move {
                    at.acquire().await.unwrap().forget();
                    assert!(!calls.contains(&13), "as planned");
                    calls.into_iter().map(|call| 10 * call).collect()
                }
            });
            Self { gather, gate, made }
        }

        /// Calls from a task of its own, which has entered when this returns.
        async fn call(&self, call: u32) -> tokio::task::JoinHandle<Result<u32, GatherError>> {
            let gather = self.gather.clone();
            let called = tokio::spawn(async move { gather.call(call).await });
            // One thread: the caller and the seat it may have taken run until they wait.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            called
        }

        fn made(&self) -> Vec<Vec<u32>> {
            self.made.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn the_first_goes_alone_and_those_behind_it_together_up_to_the_bound() {
        let gated = Gated::new(BOUNDS);
        let mut calls = Vec::new();
        for call in 1..=5 {
            calls.push(gated.call(call).await);
        }
        assert_eq!(gated.made(), [vec![1]], "at once");
        gated.gate.add_permits(3);
        for (called, call) in calls.into_iter().zip(1..) {
            assert_eq!(called.await.unwrap(), Ok(10 * call));
        }
        assert_eq!(gated.made(), [vec![1], vec![2, 3, 4], vec![5]]);
        // Nobody waits: the seat is free again.
        gated.gate.add_permits(1);
        assert_eq!(gated.gather.call(6).await, Ok(60));
    }

    #[tokio::test]
    async fn enough_of_them_go_beside_what_is_on_its_way_and_no_more_than_may() {
        let gated = Gated::new(Bounds { at_once_max: 2, company_min: 2, ..BOUNDS });
        let mut calls = Vec::new();
        for call in 1..=5 {
            calls.push(gated.call(call).await);
        }
        assert_eq!(
            gated.made(),
            [vec![1], vec![2, 3]],
            "the second waited for the third; there is no third place"
        );
        gated.gate.add_permits(3);
        for called in calls {
            assert!(called.await.unwrap().is_ok());
        }
        assert_eq!(gated.made(), [vec![1], vec![2, 3], vec![4, 5]]);
    }

    #[tokio::test]
    async fn who_finds_no_company_goes_after_a_while_beside_what_hangs_and_to_the_next_free_place() {
        let company_wait = Duration::from_millis(1);
        let gated = Gated::new(Bounds { at_once_max: 2, company_min: 3, company_wait, ..BOUNDS });
        let first = gated.call(1).await;
        assert_eq!(gated.made(), [vec![1]]);
        let beside = gated.call(2).await;
        while gated.made().len() < 2 {
            tokio::task::yield_now().await;
        }
        let behind = gated.call(3).await;
        // Its own timer was set before this one and is shorter: when this one is over, it has found no free place.
        tokio::time::sleep(2 * company_wait).await;
        tokio::task::yield_now().await;
        assert_eq!(gated.made(), [vec![1], vec![2]]);
        gated.gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Ok(10));
        assert_eq!(gated.made(), [vec![1], vec![2], vec![3]], "the second hangs");
        gated.gate.add_permits(2);
        assert_eq!((beside.await.unwrap(), behind.await.unwrap()), (Ok(20), Ok(30)));
    }

    #[tokio::test]
    async fn who_waits_for_company_goes_when_nothing_is_on_its_way_any_more() {
        let gated = Gated::new(Bounds { at_once_max: 2, company_min: 3, ..BOUNDS });
        let calls = [gated.call(1).await, gated.call(2).await];
        assert_eq!(gated.made(), [vec![1]]);
        gated.gate.add_permits(2);
        for called in calls {
            assert!(called.await.unwrap().is_ok());
        }
        assert_eq!(gated.made(), [vec![1], vec![2]]);
    }

    #[tokio::test]
    async fn who_comes_when_as_many_wait_as_may_is_refused_and_nobody_else() {
        let gated = Gated::new(BOUNDS);
        let mut calls = Vec::new();
        for call in 1..=6 {
            calls.push(gated.call(call).await);
        }
        assert_eq!(gated.gather.call(7).await, Err(GatherError::Full));
        gated.gate.add_permits(3);
        for called in calls {
            assert!(called.await.unwrap().is_ok());
        }
        assert_eq!(gated.made().concat(), [1, 2, 3, 4, 5, 6]);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_not_made_and_who_is_on_its_way_is_waited_for() {
        let gated =
            Gated::new(Bounds { company_wait: Duration::ZERO, wait_max: Duration::from_millis(1), ..BOUNDS });
        let first = gated.call(1).await;
        let second = gated.call(2).await;
        assert_eq!(second.await.unwrap(), Err(GatherError::TooLate));
        gated.gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(10));
        assert_eq!(gated.gather.call(3).await, Ok(30));
        assert_eq!(gated.made(), [vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn a_caller_who_stops_waiting_takes_nobody_along_and_its_call_is_made() {
        let gated = Gated::new(BOUNDS);
        let calls = [gated.call(1).await, gated.call(2).await, gated.call(3).await];
        calls[0].abort();
        calls[1].abort();
        gated.gate.add_permits(2);
        let [_, _, third] = calls;
        assert_eq!(third.await.unwrap(), Ok(30));
        assert_eq!(gated.made(), [vec![1], vec![2, 3]]);
    }

    #[tokio::test]
    async fn work_that_panics_is_lost_and_those_behind_it_go_on() {
        let gated = Gated::new(BOUNDS);
        let calls = [gated.call(1).await, gated.call(13).await, gated.call(2).await];
        gated.gate.add_permits(3);
        let [first, planned, beside] = calls;
        assert_eq!(first.await.unwrap(), Ok(10));
        assert_eq!(planned.await.unwrap(), Err(GatherError::Lost));
        assert_eq!(beside.await.unwrap(), Err(GatherError::Lost));
        assert_eq!(gated.gather.call(4).await, Ok(40));
    }
}
