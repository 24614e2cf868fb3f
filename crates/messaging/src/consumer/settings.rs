//! What a consumer needs to know, and its bounds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ConsumerStatus;
use crate::config::{MAX_POLL_INTERVAL_MS, SESSION_TIMEOUT_MS};
use crate::record::Record;

/// Tells whether a record may be handled now, by whatever clock decides that.
#[derive(Clone)]
pub struct Due(Arc<dyn Fn(&Record) -> bool + Send + Sync>);

impl Due {
    /// It is asked again and again about a record that is not due, so it answers at once.
    #[must_use]
    pub fn new(is_due: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_due))
    }

    /// Whether this record may be handled now.
    #[must_use]
    pub fn is_due(&self, record: &Record) -> bool {
        (self.0)(record)
    }
}

impl fmt::Debug for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Due").finish_non_exhaustive()
    }
}

/// Records of one batch: large enough that a transaction's fixed cost is spread thin, small enough that doing it again
/// one by one, when most of them fail, takes seconds.
const BATCH_RECORDS_MAX: usize = 500;
/// Bytes of one batch, so that large records do not pile up in memory. The record that reaches it is still taken.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a batch may be in the handler: three quarters of the time after which the group drops a member that does not
/// poll, so that one whose database hangs is a member all the same, and tells.
const BATCH_TIME_MAX: Duration = Duration::from_millis(MAX_POLL_INTERVAL_MS as u64 * 3 / 4);
/// How long a busy consumer waits for a batch to fill; an idle one hands a record over at once.
const BATCH_WAIT_MAX: Duration = Duration::from_millis(10);
/// First wait after a failed batch: a deadlock or a lost connection is over at once.
const RETRY_WAIT_FIRST: Duration = Duration::from_millis(50);
/// Longest wait after a failed batch: the time a service needs to notice that its database is back.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Time for the last batch, the last commit and the goodbye to the group: half of a process's usual ten seconds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A consumer's settings. Made by [`ConsumerConfig::new`]; the bounds may be changed before [`super::run`].
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// `host:port` list.
    pub bootstrap: String,
    /// Consumer group id, with prefix.
    pub group: String,
    /// Topics, with prefix.
    pub topics: Vec<String>,
    /// How this client calls itself in the broker's logs.
    pub client_id: String,
    /// Most records of a batch, at least 1.
    pub batch_records_max: usize,
    /// A batch is full with this many bytes.
    pub batch_bytes_max: usize,
    /// How long a batch may wait for more records, when the one before was large.
    pub batch_wait_max: Duration,
    /// How long a batch may be in the handler; below [`Self::max_poll_interval`]. Past it the handler's future is dropped
    /// and the batch has failed ([`super::BatchTimedOut`]).
    pub batch_time_max: Duration,
    /// After this long without a poll the group drops the member, and so long a rebalance waits for it. At least the
    /// session timeout, 6 s.
    pub max_poll_interval: Duration,
    /// First wait after a failed batch.
    pub retry_wait_first: Duration,
    /// Longest wait after a failed batch.
    pub retry_wait_max: Duration,
    /// When a record may be handled, for retry topics: until then its partition is paused, others go on, and the member
    /// polls, so that its group keeps it. `None` is at once, always.
    pub due: Option<Due>,
    /// How long [`super::run`] may take to end.
    pub close_timeout: Duration,
    /// Told what the consumer does; keep a clone for `/ready`.
    pub status: ConsumerStatus,
}

impl ConsumerConfig {
    /// Usual bounds. `group` and `topics` without prefix; the prefix is put before each as it is (`t1.` + `orders`).
    #[must_use]
    pub fn new(bootstrap: &str, prefix: &str, group: &str, topics: &[&str]) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            group: format!("{prefix}{group}"),
            topics: topics.iter().map(|topic| format!("{prefix}{topic}")).collect(),
            client_id: format!("waybill-{group}"),
            batch_records_max: BATCH_RECORDS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            batch_wait_max: BATCH_WAIT_MAX,
            batch_time_max: BATCH_TIME_MAX,
            max_poll_interval: Duration::from_millis(MAX_POLL_INTERVAL_MS.into()),
            retry_wait_first: RETRY_WAIT_FIRST,
            retry_wait_max: RETRY_WAIT_MAX,
            due: None,
            close_timeout: CLOSE_TIMEOUT,
            status: ConsumerStatus::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.group.is_empty() {
            return Err("group is empty; name the consumer group");
        }
        if self.topics.is_empty() {
            return Err("topics is empty; name at least one topic");
        }
        if self.batch_records_max == 0 {
            return Err("batch_records_max is 0; a batch has at least one record");
        }
        if self.max_poll_interval < Duration::from_millis(SESSION_TIMEOUT_MS.into()) {
            return Err("max_poll_interval is below the session timeout of 6 s; make it longer");
        }
        if self.batch_time_max >= self.max_poll_interval {
            return Err(
                "batch_time_max is not below max_poll_interval: the group would drop a busy member first",
            );
        }
        Ok(())
    }
}
