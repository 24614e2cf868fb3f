//! How far a large round reaches, found range by range: both its snapshots are fixed, so counts and edges add up. One
//! statement over everything would, over a backlog that is large and cold enough, never end in time.

use sqlx::Row as _;

use super::reader::list;
use super::{Session, StoreError};
use crate::core::round::{Extent, Round};
use crate::core::snapshot::{Difference, Xid};

/// Entries of an index that one statement passes over: a tenth of a second when they are at hand.
const RANGE_ROWS: i64 = 200_000;
/// Of each transaction that had been running so many, and of so many of them at once: the same together.
const FINISHED_ROWS: i64 = 10_000;
const FINISHED_AT_ONCE: usize = 20;

/// One range of those that began after the first snapshot, in the order of `(xid, id)`: behind `($1, $5)`, `xid < $2`
/// without `$3`, `id > $4`, `$6` entries of the index. The last row of a range that is full is where the next begins. No row
/// of the table is sent. The sub-selects turn text into ids once instead of at every row.
pub const MEASURE: &str = "
select count(*) filter (where belongs) as rows,
       min(id) filter (where belongs) as low,
       max(id) filter (where belongs) as high,
       max(xid::text) filter (where number = $6::bigint) as last_xid,
       max(id) filter (where number = $6::bigint) as last_id,
       (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock_us
from (
    select xid, id, row_number() over () as number,
           id > $4::bigint and xid <> all ((select $3::text::xid8[])::xid8[]) as belongs
    from (
        select xid, id from outbox
        where (xid, id) > ($1::text::xid8, $5::bigint) and xid < $2::text::xid8
        order by xid, id limit $6::bigint
    ) as range
) as numbered";

/// Of each transaction `$1` that had been running and has finished: its rows behind `$2`, `$3` at most.
pub const FINISHED: &str = "
select one.xid::text as xid, own.rows, own.high, (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock_us
from unnest($1::text::xid8[], $2::bigint[]) as one (xid, after)
cross join lateral (
    select count(*) as rows, max(id) as high
    from (
        select id from outbox where outbox.xid = one.xid and id > one.after order by id limit $3::bigint
    ) as range
) as own";

/// How far a round was measured.
#[derive(Debug)]
pub struct Measuring {
    difference: Difference,
    /// Rows up to this id are read.
    after: i64,
    /// Behind which the next range of those that began lies; `None` when there is none.
    begun: Option<(Xid, i64)>,
    /// Of those that have finished: which are not counted to their end, and behind which id.
    finished: Vec<(Xid, i64)>,
    rows: u64,
    begun_low_id: Option<i64>,
    high_id: Option<i64>,
    finished_with_rows: Vec<Xid>,
}

impl Measuring {
    /// Of the rest of this round; nothing is measured yet.
    #[must_use]
    pub fn of(round: &Round) -> Self {
        let difference = Difference::between(&round.from, &round.to);
        Self {
            after: round.after,
            begun: Some((difference.begun_from, i64::MIN)),
            finished: difference.finished.iter().map(|xid| (*xid, round.after)).collect(),
            difference,
            rows: 0,
            begun_low_id: None,
            high_id: None,
            finished_with_rows: Vec::new(),
        }
    }

    /// What was found, when no range is left; `None` when no row is.
    #[must_use]
    pub fn extent(self) -> Option<Extent> {
        let high_id = self.high_id?;
        Some(Extent {
            rows: self.rows,
            // None began: the first stream is empty.
            begun_low_id: self.begun_low_id.unwrap_or(high_id.saturating_add(1)),
            high_id,
            finished: self.finished_with_rows,
        })
    }

    /// Measures the next range: the database's clock, or `None` when none is left.
    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Option<i64>, StoreError> {
        match self.begun {
            Some(behind) => self.next_begun(session, behind).await.map(Some),
            None if self.finished.is_empty() => Ok(None),
            None => self.next_finished(session).await,
        }
    }

    async fn next_begun(&mut self, session: &mut Session, behind: (Xid, i64)) -> Result<i64, StoreError> {
        let query = sqlx::query(MEASURE)
            .bind(behind.0.to_string())
            .bind(self.difference.begun_below.to_string())
            .bind(list(&self.difference.begun_except))
            .bind(self.after)
            .bind(behind.1)
            .bind(RANGE_ROWS);
        let row = session.bounded(async |connection| query.fetch_one(connection).await).await?;
        let low: Option<i64> = row.try_get("low")?;
        self.begun_low_id = self.begun_low_id.into_iter().chain(low).min();
        self.add(row.try_get("rows")?, row.try_get("high")?);
        let last = (row.try_get::<Option<&str>, _>("last_xid")?, row.try_get::<Option<i64>, _>("last_id")?);
        self.begun = match last {
            (Some(xid), Some(id)) => Some((number(xid)?, id)),
            _ => None,
        };
        Ok(row.try_get("clock_us")?)
    }

    async fn next_finished(&mut self, session: &mut Session) -> Result<Option<i64>, StoreError> {
        let now = self.finished.split_off(self.finished.len().saturating_sub(FINISHED_AT_ONCE));
        let (xids, afters): (Vec<Xid>, Vec<i64>) = now.into_iter().unzip();
        let query = sqlx::query(FINISHED).bind(list(&xids)).bind(afters).bind(FINISHED_ROWS);
        let rows = session.bounded(async |connection| query.fetch_all(connection).await).await?;
        let mut clock_us = None;
        for row in rows {
            clock_us = Some(row.try_get("clock_us")?);
            let (count, high): (i64, Option<i64>) = (row.try_get("rows")?, row.try_get("high")?);
            let Some(high) = high else { continue };
            let xid = number(row.try_get("xid")?)?;
            if !self.finished_with_rows.contains(&xid) {
                self.finished_with_rows.push(xid);
            }
            if count == FINISHED_ROWS {
                self.finished.push((xid, high));
            }
            self.add(count, Some(high));
        }
        Ok(clock_us)
    }

    fn add(&mut self, rows: i64, high: Option<i64>) {
        self.rows += u64::try_from(rows).unwrap_or_default();
        self.high_id = self.high_id.max(high);
    }
}

fn number(xid: &str) -> Result<Xid, StoreError> {
    xid.parse().map_err(|_| StoreError::Unreadable(format!("{xid:?} is no transaction id")))
}
