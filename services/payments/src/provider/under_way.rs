//! Work that goes on when its caller has hung up: one task per key, and whoever asks again meanwhile waits for the same.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Tasks at a time, a kilobyte or two each: more than callers of ten seconds' patience leave behind in a minute.
const TASKS_MAX: usize = 10_000;

/// There is no room for another task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// What is being worked on. A task's entry goes when it ends, however it ends.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay {
    keys: Arc<Mutex<HashMap<String, watch::Receiver<()>>>>,
}

impl UnderWay {
    /// Starts `work` unless work of this key is under way, and waits until that is over. A caller who stops waiting
    /// stops nothing.
    pub(super) async fn wait<F>(&self, key: &str, work: impl FnOnce() -> F) -> Result<(), TooMany>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut over = self.join(key, work)?;
        // Nothing is ever sent: an error means that the task has ended, which is what is waited for.
        let _ended = over.changed().await;
        Ok(())
    }

    fn join<F>(&self, key: &str, work: impl FnOnce() -> F) -> Result<watch::Receiver<()>, TooMany>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = keys.get(key) {
            return Ok(over.clone());
        }
        if keys.len() >= TASKS_MAX {
            return Err(TooMany);
        }
        let (running, over) = watch::channel(());
        keys.insert(key.to_owned(), over.clone());
        let entry = Entry { keys: Arc::clone(&self.keys), key: key.to_owned(), _running: running };
        let work = work();
        tokio::spawn(async move {
            let _entry = entry;
            work.await;
        });
        Ok(over)
    }
}

/// Takes the key out when its task ends or panics, then (fields are dropped after it) lets the callers know.
struct Entry {
    keys: Arc<Mutex<HashMap<String, watch::Receiver<()>>>>,
    key: String,
    _running: watch::Sender<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_caller_who_hangs_up_stops_nothing_and_another_joins() {
        let (under_way, gate, runs) =
            (UnderWay::default(), Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (gate, runs) = (Arc::clone(&gate), Arc::clone(&runs));
            async move {
                gate.acquire().await.unwrap().forget();
                runs.fetch_add(1, Ordering::SeqCst);
            }
        };
        for _ in 0..2 {
            let hung_up = timeout(Duration::ZERO, under_way.wait("key", work)).await;
            assert!(hung_up.is_err(), "the work waits for its gate");
        }
        gate.add_permits(2);
        assert_eq!(under_way.wait("key", work).await, Ok(()));
        assert_eq!(runs.load(Ordering::SeqCst), 1, "one task did it for all");
        assert!(under_way.keys.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_leaves_no_key_behind() {
        let under_way = UnderWay::default();
        assert_eq!(under_way.wait("key", || async { panic!("as planned") }).await, Ok(()));
        assert!(under_way.keys.lock().unwrap().is_empty());
    }
}
