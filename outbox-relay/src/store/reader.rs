//! Reads the outbox: a poll, the ranges of a large round, its pieces. Every statement is short and stands alone.
//!
//! The session's planner is told to go by indexes only: a plan that once fitted an empty partition would otherwise be
//! kept while the partition grows by millions of rows. `tests/it/plans.rs` looks at the plans.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgRow};

use super::{Measuring, Row, Session, StoreError};
use crate::core::round::{Extent, Round};
use crate::core::snapshot::{Difference, Snapshot, Xid};

/// A poll and a piece answer at once: by an index, as many rows as a piece has. With the time an answer has to arrive, a
/// connection that is dead and does not know is given up after a quarter of a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Go by indexes, plan once, stay in one process, do not compile: the statements are few, short and known.
pub const SETTINGS: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; \
    set plan_cache_mode = force_generic_plan; set jit = off; set max_parallel_workers_per_gather = 0";

/// A row's bytes as they are sent: `pg_column_size` alone would tell those of compressed headers. That they are is rare,
/// and only then they are unpacked.
macro_rules! row_bytes {
    () => {
        "coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0)
            + case when pg_column_compression(headers) is null then pg_column_size(headers)
                   else octet_length(headers::text) end as bytes"
    };
}

/// A snapshot and, if they fit in one piece, the rows it sees and `$1`, `$2` (upper edge and running transactions of
/// the last one) did not. Under READ COMMITTED `pg_current_snapshot()` is the snapshot of the statement it stands in,
/// so what the statement sees needs no further test. Each index read stops at one row more than a piece.
pub const POLL: &str = concat!(
    "
with fresh as materialized (
    (select id, topic, key, headers, payload, created_at, xid,
            ",
    row_bytes!(),
    "
     from outbox where xid >= $1::text::xid8 order by xid limit $3::bigint)
    union all
    (select id, topic, key, headers, payload, created_at, xid,
            ",
    row_bytes!(),
    "
     from outbox where xid = any ($2::text::xid8[]) order by xid limit $3::bigint)
), total as materialized (
    select count(*) as rows, coalesce(sum(bytes), 0) as bytes,
           coalesce(bool_or(xid >= pg_snapshot_xmax(pg_current_snapshot())), false) as foreign_rows,
           min(created_at) as oldest
    from fresh
)
select null::bigint as id, null::text as topic, null::bytea as key, null::json as headers, null::bytea as payload,
       null::timestamptz as created_at,
       concat_ws(' ', pg_current_snapshot(), rows < $3::bigint and bytes <= $4::bigint, foreign_rows,
                 (extract(epoch from clock_timestamp()) * 1000000)::bigint,
                 (extract(epoch from oldest) * 1000000)::bigint) as head
from total
union all
select * from (
    select fresh.id, topic, key, headers, payload, created_at, null::text
    from fresh, total
    where total.rows < $3::bigint and total.bytes <= $4::bigint
    order by fresh.id
) as ordered"
);

/// The next rows of a round by id: two streams, each read in the order of its index, merged. `$5` is the last id read,
/// `$6` the lowest id of those that began, less one, `$7` the highest id of the round.
macro_rules! next_rows {
    () => {
        concat!(
            "
    (select id, topic, key, headers, payload, created_at,
            ",
            row_bytes!(),
            "
     from outbox
     where id > greatest($5::bigint, $6::bigint) and id <= $7
       and xid >= (select $1::text::xid8) and xid < (select $2::text::xid8)
       and xid <> all ((select $3::text::xid8[])::xid8[])
     order by id limit $8::bigint)
    union all
    (select own.*
     from unnest($4::text::xid8[]) as one (xid)
     cross join lateral (
         select id, topic, key, headers, payload, created_at,
                ",
            row_bytes!(),
            "
         from outbox where outbox.xid = one.xid and id > $5 and id <= $7
         order by id limit $8::bigint
     ) as own
     order by id limit $8::bigint)
    order by id limit $8::bigint"
        )
    };
}

/// A piece of rows that are known to be small: bounded by their number; who reads stops when the bytes come to more.
pub const PIECE: &str = concat!(
    "select id, topic, key, headers, payload, created_at from (",
    next_rows!(),
    ") as next order by id"
);

/// A piece bounded by its bytes too, on the server. Three times the work for small rows: every row is kept aside while
/// the sizes are added up.
pub const PIECE_SIZED: &str = concat!(
    "select id, topic, key, headers, payload, created_at from (
     select *, sum(bytes) over (order by id rows unbounded preceding) - bytes as bytes_before from (",
    next_rows!(),
    ") as next) as sized where bytes_before < $9::bigint order by id"
);

/// How much is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Rows of a piece.
    pub rows_max: u32,
    /// Bytes of a piece; its last row may pass them.
    pub bytes_max: u32,
}

/// What a poll answers.
#[derive(Debug)]
pub struct Poll {
    /// The snapshot it took.
    pub now: Arc<Snapshot>,
    /// Every row of the difference by id; `None` when they are more than a piece.
    pub rows: Option<Vec<Row>>,
    /// The database's clock, microseconds since 1970.
    pub clock_us: i64,
    /// When the oldest of the rows was made that were looked at: a piece's, and one more.
    pub oldest_us: Option<i64>,
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// A statement failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows of transactions that this server has not had: another cluster wrote them.
    #[error(
        "the outbox holds rows of transactions that this server has not had yet: the table was moved here from \
         another server (dump and restore). Nothing is published until it is mended: `select * from \
         outbox_mend_restored(apply => true)`, see docs/relay.md, \"After a restore\""
    )]
    ForeignRows,
}

/// A connection that reads.
pub struct Reader {
    session: Session,
    options: PgConnectOptions,
    /// Of a range that is measured.
    statement_timeout: Duration,
    measures: bool,
    bounds: Bounds,
    sizes: Sizes,
}

/// What is known of the sizes of a large round's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sizes {
    /// Nothing yet: the server adds them up.
    Unknown,
    /// A piece of the largest seen would keep the bounds.
    Small,
    /// A piece that was taken for small had to be cut: the server adds them up until the round ends.
    Mixed,
}

impl Reader {
    /// Connects. `statement_timeout` bounds each statement; all but [`Reader::measure`] are given less.
    ///
    /// # Errors
    /// [`StoreError::Away`] and its kin.
    pub async fn connect(
        options: &PgConnectOptions,
        bounds: Bounds,
        statement_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let session = Session::connect(options, statement_timeout.min(READ_TIMEOUT), SETTINGS).await?;
        let (options, sizes) = (options.clone(), Sizes::Unknown);
        Ok(Self { session, options, statement_timeout, measures: false, bounds, sizes })
    }

    /// A new snapshot, and the rows it sees that `from` did not. No more than one round trip.
    ///
    /// # Errors
    /// [`ReaderError::ForeignRows`], and whatever the statement meets.
    pub async fn poll(&mut self, from: &Snapshot) -> Result<Poll, ReaderError> {
        self.limit(false).await?;
        let query = sqlx::query(POLL)
            .bind(from.xmax().to_string())
            .bind(list(from.running()))
            .bind(i64::from(self.bounds.rows_max) + 1)
            .bind(i64::from(self.bounds.bytes_max));
        let rows = self.session.bounded(async |connection| query.fetch_all(connection).await).await?;
        let mut rows = rows.into_iter();
        let head =
            rows.next().ok_or_else(|| StoreError::Unreadable("a poll without a first row".to_owned()))?;
        let head = Head::read(&head)?;
        if head.foreign_rows {
            return Err(ReaderError::ForeignRows);
        }
        let rows = rows.map(Row::new).collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
        Ok(Poll {
            now: Arc::new(head.now),
            rows: head.fits.then_some(rows),
            clock_us: head.clock_us,
            oldest_us: head.oldest_us,
        })
    }

    /// Measures the next range of a large round; the database's clock, microseconds since 1970, or `None` when there is no
    /// range left.
    ///
    /// # Errors
    /// Whatever the statement meets.
    pub async fn measure(&mut self, measuring: &mut Measuring) -> Result<Option<i64>, ReaderError> {
        self.limit(true).await?;
        self.sizes = Sizes::Unknown;
        Ok(measuring.next(&mut self.session).await?)
    }

    /// Gives statements the time that they may take.
    async fn limit(&mut self, measures: bool) -> Result<(), StoreError> {
        if measures != self.measures {
            let long = self.statement_timeout;
            self.session.limit(if measures { long } else { long.min(READ_TIMEOUT) }).await?;
            self.measures = measures;
        }
        Ok(())
    }

    /// The next rows of a large round, by id; none when it is at its end.
    ///
    /// # Errors
    /// Whatever the statement meets.
    pub async fn piece(&mut self, round: &Round, extent: &Extent) -> Result<PieceRows, ReaderError> {
        self.limit(false).await?;
        let difference = Difference::between(&round.from, &round.to);
        let small = self.sizes == Sizes::Small;
        let query = sqlx::query(if small { PIECE } else { PIECE_SIZED })
            .bind(difference.begun_from.to_string())
            .bind(difference.begun_below.to_string())
            .bind(list(&difference.begun_except))
            .bind(list(&extent.finished))
            .bind(round.after)
            .bind(extent.begun_low_id.saturating_sub(1))
            .bind(extent.high_id)
            .bind(i64::from(self.bounds.rows_max));
        let query = if small { query } else { query.bind(i64::from(self.bounds.bytes_max)) };
        let bytes_max = if small { self.bounds.bytes_max as usize } else { usize::MAX };
        let taken =
            self.session.bounded(async |connection| take(query.fetch(connection), bytes_max).await).await?;
        if taken.cut {
            // What the server still sends is not waited for: it may be a thousand large rows.
            self.session =
                Session::connect(&self.options, self.statement_timeout.min(READ_TIMEOUT), SETTINGS).await?;
            self.sizes = Sizes::Mixed;
        } else if self.sizes == Sizes::Unknown {
            let largest_piece = taken.largest.saturating_mul(self.bounds.rows_max as usize);
            let small = largest_piece <= self.bounds.bytes_max as usize;
            self.sizes = if small { Sizes::Small } else { Sizes::Unknown };
        }
        Ok(PieceRows { rows: taken.rows, reconnected: taken.cut })
    }
}

/// What a piece answers.
pub struct PieceRows {
    /// Its rows.
    pub rows: Vec<Row>,
    /// Whether what comes next is read on another connection than what came before.
    pub reconnected: bool,
}

/// Rows of a piece as far as they were taken.
struct Taken {
    rows: Vec<Row>,
    largest: usize,
    /// More were on their way than the bytes allowed.
    cut: bool,
}

/// Takes rows until there is none left or their bytes come to the bound.
async fn take(
    mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin,
    bytes_max: usize,
) -> Result<Taken, sqlx::Error> {
    let mut taken = Taken { rows: Vec::new(), largest: 0, cut: false };
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let row = Row::new(row)?;
        bytes += row.size();
        taken.largest = taken.largest.max(row.size());
        taken.rows.push(row);
        if bytes >= bytes_max {
            taken.cut = true;
            break;
        }
    }
    Ok(taken)
}

/// The first row of a poll: the snapshot, whether everything fits, whether rows are foreign, the clock, the oldest row.
struct Head {
    now: Snapshot,
    fits: bool,
    foreign_rows: bool,
    clock_us: i64,
    oldest_us: Option<i64>,
}

impl Head {
    fn read(row: &PgRow) -> Result<Self, StoreError> {
        let text: &str = row.try_get("head")?;
        let wrong = || StoreError::Unreadable(format!("{text:?} is no head of a poll"));
        let mut parts = text.split(' ');
        let mut next = || parts.next().ok_or_else(wrong);
        Ok(Self {
            now: next()?.parse().map_err(|_| wrong())?,
            fits: next()? == "t",
            foreign_rows: next()? == "t",
            clock_us: next()?.parse().map_err(|_| wrong())?,
            // Without a row there is none, and nothing is written.
            oldest_us: next().ok().and_then(|oldest| oldest.parse().ok()),
        })
    }
}

/// An array literal of transaction ids.
pub(super) fn list(xids: &[Xid]) -> String {
    let mut text = String::with_capacity(2 + xids.len() * 12);
    text.push('{');
    for (place, xid) in xids.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&xid.to_string());
    }
    text.push('}');
    text
}
