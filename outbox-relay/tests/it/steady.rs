//! Writers who go on through everything: one that loses its server connects again and writes on, until told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use waybill_testkit::eventually;

use super::setup::{SOON, try_append};

/// Pause between two transactions, and after a failure.
const PAUSE: Duration = Duration::from_millis(5);
/// Aggregates they share.
const AGGREGATES: usize = 8;

/// Some of them at work.
pub(crate) struct Steady {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicUsize>,
    writers: JoinSet<()>,
}

impl Steady {
    /// Starts so many on the database of this URL.
    pub(crate) fn start(url: &str, topic: &str, count: usize) -> Self {
        let (stop, committed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut writers = JoinSet::new();
        for number in 0..count {
            let (url, topic, stop) = (url.to_owned(), topic.to_owned(), Arc::clone(&stop));
            let committed = Arc::clone(&committed);
            writers.spawn(async move {
                let mut aggregate = number;
                while !stop.load(Ordering::SeqCst) {
                    // Whether a commit that was not answered happened is for the table to say.
                    let _away = write(&url, &topic, &mut aggregate, &stop, &committed).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { stop, committed, writers }
    }

    /// Waits until they have committed so many more transactions.
    pub(crate) async fn committed(&self, more: usize) {
        let goal = self.so_far() + more;
        eventually(SOON, async || (self.so_far() >= goal).then_some(())).await;
    }

    /// Transactions of which they know that they are committed.
    pub(crate) fn so_far(&self) -> usize {
        self.committed.load(Ordering::SeqCst)
    }

    /// Ends them.
    pub(crate) async fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
    }
}

/// One connection's life.
async fn write(
    url: &str,
    topic: &str,
    aggregate: &mut usize,
    stop: &AtomicBool,
    committed: &AtomicUsize,
) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    while !stop.load(Ordering::SeqCst) {
        *aggregate = *aggregate % AGGREGATES + 1;
        let number = i32::try_from(*aggregate).unwrap();
        let mut transaction = connection.begin().await?;
        try_append(&mut transaction, topic, number, 16).await?;
        try_append(&mut transaction, topic, number, 16).await?;
        transaction.commit().await?;
        committed.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
