//! The row that holds position and lease: taken, renewed together with the position, given back.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgRow};

use super::{Session, StoreError};
use crate::core::position::{Inside, Position};
use crate::core::snapshot::Snapshot;

/// A position or a renewal that a crash of the server forgets costs repeats, never a row: waiting for the disk (or for
/// a standby) buys nothing.
const SETTINGS: &str = "set synchronous_commit = off";

/// Takes the lease when it is free, run out, or already ours; the lease's end is on the database's clock.
const ACQUIRE: &str = "
with taken as (
    update outbox_relay
    set epoch = epoch + 1, owner = $2, updated_at = clock_timestamp(),
        lease_expires_at = clock_timestamp() + $3::bigint * interval '1 millisecond'
    where name = $1
      and (owner is null or owner = $2 or lease_expires_at is null or lease_expires_at < clock_timestamp())
    returning name, epoch, position_from, position_to, position_id
)
select taken.epoch, taken.position_from::text as position_from, taken.position_to::text as position_to,
       taken.position_id, relay.owner
from outbox_relay relay left join taken on taken.name = relay.name
where relay.name = $1";

/// Renews the lease and stores the position in one new row version; only under the holder's epoch.
const KEEP: &str = "
update outbox_relay
set lease_expires_at = clock_timestamp() + $4::bigint * interval '1 millisecond', updated_at = clock_timestamp(),
    position_from = coalesce($5::text::pg_snapshot, position_from),
    position_to = case when $5::text is null then position_to else $6::text::pg_snapshot end,
    position_id = case when $5::text is null then position_id else $7::bigint end
where name = $1 and owner = $2 and epoch = $3";

/// The last write of a holder: position stored, lease free at once for whoever waits.
const RELEASE: &str = "
update outbox_relay
set lease_expires_at = null, owner = null, updated_at = clock_timestamp(),
    position_from = coalesce($4::text::pg_snapshot, position_from),
    position_to = case when $4::text is null then position_to else $5::text::pg_snapshot end,
    position_id = case when $4::text is null then position_id else $6::bigint end
where name = $1 and owner = $2 and epoch = $3";

/// The answer to an attempt to take the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Granted, with the position to go on from.
    Granted {
        /// Fences every write.
        epoch: i64,
        /// Where the last holder came to.
        position: Position,
    },
    /// Another relay has it.
    Held {
        /// Which.
        owner: String,
    },
}

/// Why the row could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// A statement failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another relay has taken the lease since: nothing was written.
    #[error("the lease is lost: another relay has taken it")]
    LeaseLost,
    /// There is no row of that name.
    #[error("table outbox_relay has no row named {0:?}: insert into outbox_relay (name) values ('{0}')")]
    NoRow(String),
    /// The row holds something that is no position.
    #[error("the stored position can not be read")]
    BadPosition(#[from] crate::core::snapshot::NoSnapshot),
}

/// A connection that holds the lease. Its own, so that a long read never delays a renewal.
pub struct Keeper {
    session: Session,
    name: String,
    owner: String,
    lease: Duration,
}

impl Keeper {
    /// Connects. `name` is the row's, `owner` this relay's, `lease` how long a lease lasts.
    ///
    /// # Errors
    /// [`StoreError::Away`] and its kin.
    pub async fn connect(
        options: &PgConnectOptions,
        name: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Self, StoreError> {
        // A fifth of the lease: a statement that hangs must not eat the time in which to step down.
        let session = Session::connect(options, lease / 5, SETTINGS).await?;
        Ok(Self { session, name: name.to_owned(), owner: owner.to_owned(), lease })
    }

    /// Tries to take the lease.
    ///
    /// # Errors
    /// [`KeeperError::NoRow`], and whatever the statement meets.
    pub async fn acquire(&mut self) -> Result<Grant, KeeperError> {
        let query = sqlx::query(ACQUIRE).bind(&self.name).bind(&self.owner).bind(millis(self.lease));
        let row = self.session.bounded(async |connection| query.fetch_optional(connection).await).await?;
        let row = row.ok_or_else(|| KeeperError::NoRow(self.name.clone()))?;
        let Some(epoch) = row.try_get::<Option<i64>, _>("epoch").map_err(StoreError::from)? else {
            let owner: Option<String> = row.try_get("owner").map_err(StoreError::from)?;
            return Ok(Grant::Held { owner: owner.unwrap_or_default() });
        };
        Ok(Grant::Granted { epoch, position: position(&row)? })
    }

    /// Renews the lease, and stores the position when one is given. One HOT update.
    ///
    /// # Errors
    /// [`KeeperError::LeaseLost`] when the epoch is not this one any more.
    pub async fn keep(&mut self, epoch: i64, position: Option<&Position>) -> Result<(), KeeperError> {
        let (from, to, id) = columns(position);
        let query = sqlx::query(KEEP)
            .bind(&self.name)
            .bind(&self.owner)
            .bind(epoch)
            .bind(millis(self.lease))
            .bind(from)
            .bind(to)
            .bind(id);
        let done = self.session.bounded(async |connection| query.execute(connection).await).await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(KeeperError::LeaseLost) }
    }

    /// Stores the position when one is given, and gives the lease back.
    ///
    /// # Errors
    /// As [`Keeper::keep`].
    pub async fn release(&mut self, epoch: i64, position: Option<&Position>) -> Result<(), KeeperError> {
        let (from, to, id) = columns(position);
        let query =
            sqlx::query(RELEASE).bind(&self.name).bind(&self.owner).bind(epoch).bind(from).bind(to).bind(id);
        let done = self.session.bounded(async |connection| query.execute(connection).await).await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(KeeperError::LeaseLost) }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn columns(position: Option<&Position>) -> (Option<String>, Option<String>, i64) {
    let Some(position) = position else { return (None, None, 0) };
    let inside = position.inside.as_ref();
    (
        Some(position.from.to_string()),
        inside.map(|inside| inside.to.to_string()),
        inside.map_or(0, |inside| inside.last_id),
    )
}

fn position(row: &PgRow) -> Result<Position, KeeperError> {
    let from: String = row.try_get("position_from").map_err(StoreError::from)?;
    let to: Option<String> = row.try_get("position_to").map_err(StoreError::from)?;
    let last_id: i64 = row.try_get("position_id").map_err(StoreError::from)?;
    let from: Arc<Snapshot> = Arc::new(from.parse()?);
    let inside = match to {
        Some(to) => Some(Inside { to: Arc::new(to.parse()?), last_id }),
        None => None,
    };
    Ok(Position { from, inside })
}
