//! The row that holds position and lease: taken, renewed together with the position, given back.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgRow};

use super::waiter;
use super::{SESSION, Session, StoreError};
use crate::core::position::{Inside, Position};
use crate::core::snapshot::Snapshot;

/// A position or a renewal that a crash of the server forgets costs repeats, never a row: waiting for the disk (or for
/// a standby) buys nothing.
const SETTINGS: &str = "set synchronous_commit = off";

/// How long one that was given back is left to a waiting relay that holds fewer, in milliseconds: each asks four times a
/// second, so one that has not asked by then is not well.
const LEFT_MS: i64 = 1_000;

/// Takes the lease when it is run out, already ours, or free: given back, it is left for [`LEFT_MS`] to whoever waits and
/// holds fewer. The lease's end is on the database's clock. The session's name says whether it waits.
const ACQUIRE: &str = "
with taken as (
    update outbox_relay
    set epoch = epoch + 1, owner = $2, updated_at = clock_timestamp(),
        lease_expires_at = clock_timestamp() + $3::bigint * interval '1 millisecond'
    where name = $1
      and (owner = $2 or lease_expires_at < clock_timestamp()
           or (owner is null or lease_expires_at is null)
              and (updated_at < clock_timestamp() - $4::bigint * interval '1 millisecond'
                   or not exists (
                       select from pg_stat_activity
                       where datname = current_database() and pid <> pg_backend_pid()
                         and starts_with(application_name, $5) and application_name collate \"C\" < $6
                         -- One that asked lately. Of another role's sessions that is not told.
                         and (state_change is null or state_change > clock_timestamp() - interval '2 seconds'))))
    returning name, epoch, position_from, position_to, position_id
)
select taken.epoch, taken.position_from::text as position_from, taken.position_to::text as position_to,
       taken.position_id, relay.owner,
       extract(epoch from relay.lease_expires_at - clock_timestamp())::float8 as left_s,
       set_config('application_name', case when taken.epoch is null then $6 else $7 end, false)
from outbox_relay relay left join taken on taken.name = relay.name
where relay.name = $1";

/// Renews the lease and stores the position in one new row version; only under the holder's epoch. Tells who waits, the
/// one first that holds the fewest.
const KEEP: &str = "
update outbox_relay
set lease_expires_at = clock_timestamp() + $4::bigint * interval '1 millisecond', updated_at = clock_timestamp(),
    position_from = coalesce($5::text::pg_snapshot, position_from),
    position_to = case when $5::text is null then position_to else $6::text::pg_snapshot end,
    position_id = case when $5::text is null then position_id else $7::bigint end
where name = $1 and owner = $2 and epoch = $3
returning (select min(application_name collate \"C\") from pg_stat_activity
           where datname = current_database() and starts_with(application_name, $8)
             and (state_change is null or state_change > clock_timestamp() - interval '2 seconds')) as waiter";

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
        /// For how long, unless it renews it.
        left: Duration,
    },
    /// It was given back, and is left to a waiting relay that holds fewer databases.
    Left,
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
    /// The task that waited for the answer ended.
    #[error("the task that keeps the lease ended")]
    Gone,
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
    /// Connects. `name` is the row's, `owner` this relay's, `lease` how long a lease lasts, `holding` what this session
    /// shows while it waits: how many databases the process holds.
    ///
    /// # Errors
    /// [`StoreError::Away`] and its kin.
    pub async fn connect(
        options: &PgConnectOptions,
        name: &str,
        owner: &str,
        lease: Duration,
        holding: usize,
    ) -> Result<Self, StoreError> {
        let options = options.clone().application_name(&waiter::name(name, holding));
        // A fifth of the lease: a statement that hangs must not eat the time in which to step down.
        let session = Session::connect(&options, lease / 5, SETTINGS).await?;
        Ok(Self { session, name: name.to_owned(), owner: owner.to_owned(), lease })
    }

    /// Tries to take the lease, and shows how many databases the process holds while it waits.
    ///
    /// # Errors
    /// [`KeeperError::NoRow`], and whatever the statement meets.
    pub async fn acquire(&mut self, holding: usize) -> Result<Grant, KeeperError> {
        let query = sqlx::query(ACQUIRE)
            .bind(&self.name)
            .bind(&self.owner)
            .bind(millis(self.lease))
            .bind(LEFT_MS)
            .bind(waiter::prefix(&self.name))
            .bind(waiter::name(&self.name, holding))
            .bind(SESSION);
        let row = self.session.bounded(async |connection| query.fetch_optional(connection).await).await?;
        let row = row.ok_or_else(|| KeeperError::NoRow(self.name.clone()))?;
        let Some(epoch) = row.try_get::<Option<i64>, _>("epoch").map_err(StoreError::from)? else {
            let owner: Option<String> = row.try_get("owner").map_err(StoreError::from)?;
            let left_s: Option<f64> = row.try_get("left_s").map_err(StoreError::from)?;
            let left = Duration::try_from_secs_f64(left_s.unwrap_or_default()).unwrap_or_default();
            return Ok(owner.map_or(Grant::Left, |owner| Grant::Held { owner, left }));
        };
        Ok(Grant::Granted { epoch, position: position(&row)? })
    }

    /// Renews the lease, and stores the position when one is given. One HOT update. Returns how many databases are held
    /// by the one that holds the fewest of those who wait for this one; `None` when nobody waits.
    ///
    /// # Errors
    /// [`KeeperError::LeaseLost`] when the epoch is not this one any more.
    pub async fn keep(
        &mut self,
        epoch: i64,
        position: Option<&Position>,
    ) -> Result<Option<usize>, KeeperError> {
        let (from, to, id) = columns(position);
        let query = sqlx::query(KEEP)
            .bind(&self.name)
            .bind(&self.owner)
            .bind(epoch)
            .bind(millis(self.lease))
            .bind(from)
            .bind(to)
            .bind(id)
            .bind(waiter::prefix(&self.name));
        let row = self.session.bounded(async |connection| query.fetch_optional(connection).await).await?;
        let row = row.ok_or(KeeperError::LeaseLost)?;
        let fewest: Option<String> = row.try_get("waiter").map_err(StoreError::from)?;
        Ok(fewest.as_deref().and_then(waiter::holding))
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
