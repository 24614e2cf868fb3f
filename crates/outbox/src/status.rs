//! How the outbox stands: the relay's position and lease, what waits to be published, the partitions.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

/// The row of `outbox_relay` that the migration makes.
pub const RELAY_DEFAULT: &str = "default";
/// Unpublished rows are counted up to here: a count must not cost more than a second.
pub const UNPUBLISHED_ROWS_MAX: i64 = 1_000_000;

/// Position and lease of a relay.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Relay {
    /// The row's name.
    pub name: String,
    /// Everything visible in this `pg_snapshot` (as text) is published.
    pub position_from: String,
    /// Inside a round: rows visible in this one and not in the other are published up to `position_id`.
    pub position_to: Option<String>,
    /// See `position_to`.
    pub position_id: i64,
    /// Counts the leases taken.
    pub epoch: i64,
    /// Who publishes; `None` when nobody does.
    pub owner: Option<String>,
    /// When the lease ends unless it is renewed.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// When position or lease were written last.
    pub updated_at: DateTime<Utc>,
}

/// One day of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Partition {
    /// The table's name.
    pub name: String,
    /// First instant of its rows' `created_at`.
    pub starts_at: DateTime<Utc>,
    /// First instant after.
    pub ends_at: DateTime<Utc>,
    /// As the last ANALYZE or VACUUM saw it; 0 before the first.
    pub rows_estimate: i64,
    /// On disk, indexes included.
    pub bytes: i64,
    /// Whether every relay has published every row of it.
    pub published: bool,
}

/// The outbox as seen from its own database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The relay asked for.
    pub relay: Relay,
    /// When the oldest row that waits was appended; `None` when none waits.
    pub oldest_unpublished_at: Option<DateTime<Utc>>,
    /// Rows that wait; `None` when they are more than [`UNPUBLISHED_ROWS_MAX`].
    pub unpublished_rows: Option<u64>,
    /// Oldest first.
    pub partitions: Vec<Partition>,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No such row in `outbox_relay`.
    #[error("table outbox_relay has no row named {0:?}")]
    NoRelay(String),
    /// The database refused or is away.
    #[error("the outbox could not be read")]
    Database(#[from] sqlx::Error),
}

#[derive(FromRow)]
struct Waiting {
    read: i64,
    waiting: i64,
    oldest_at: Option<DateTime<Utc>>,
}

/// Rows that the relay's position does not see, by two index reads with a bound; less those that it has published in an
/// unfinished round.
const WAITING: &str = "
with relay as materialized (
    select position_from, position_to, position_id from outbox_relay where name = $1
), behind as materialized (
    (select id, xid, created_at from outbox
     where xid >= (select pg_snapshot_xmax(position_from) from relay) order by xid, id limit $2)
    union all
    (select id, xid, created_at from outbox
     where xid = any (array(select pg_snapshot_xip(position_from) from relay)) order by xid, id limit $2)
)
select count(*) as read, count(*) filter (where waits) as waiting, min(created_at) filter (where waits) as oldest_at
from (
    select created_at,
           not coalesce(pg_visible_in_snapshot(xid, position_to) and id <= position_id, false) as waits
    from behind, relay
) as judged";

/// How the outbox stands for a relay, usually [`RELAY_DEFAULT`]. The position is stored with a delay (a fifth of the
/// lease, two seconds by default), so rows published a moment ago may count as waiting.
///
/// # Errors
/// [`StatusError::NoRelay`], and what the database said.
pub async fn read(connection: &mut PgConnection, relay: &str) -> Result<Status, StatusError> {
    let found: Option<Relay> = sqlx::query_as(
        "select name, position_from::text, position_to::text, position_id, epoch, owner, lease_expires_at, updated_at
         from outbox_relay where name = $1",
    )
    .bind(relay)
    .fetch_optional(&mut *connection)
    .await?;
    let found = found.ok_or_else(|| StatusError::NoRelay(relay.to_owned()))?;
    let waiting: Waiting = sqlx::query_as(WAITING)
        .bind(relay)
        .bind(UNPUBLISHED_ROWS_MAX + 1)
        .fetch_one(&mut *connection)
        .await?;
    let partitions = sqlx::query_as("select * from outbox_partitions()").fetch_all(connection).await?;
    let counted = waiting.read <= UNPUBLISHED_ROWS_MAX;
    Ok(Status {
        relay: found,
        oldest_unpublished_at: waiting.oldest_at,
        unpublished_rows: counted.then(|| u64::try_from(waiting.waiting).unwrap_or_default()),
        partitions,
    })
}
