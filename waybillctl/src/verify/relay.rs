//! The relays' rows of an outbox: each has one owner under one epoch, and goes forward.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::databases::{Looks, Owner};
use super::report::Check;

/// A relay's row at one moment. Transaction ids as numbers: a server counts them for longer than it lives.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Row {
    name: String,
    epoch: i64,
    owner: Option<String>,
    /// Up to which transaction everything is published.
    published: i64,
    /// What is wrong with the row by itself.
    wrong: Option<String>,
    /// A crash of the server may take the last writes back: positions are stored without waiting for the disk.
    server_started_at: DateTime<Utc>,
}

/// The same outbox, seen twice.
pub(crate) struct Before([Vec<Row>; 3]);

const ROWS: &str = "select name, epoch, owner, pg_snapshot_xmax(position_from)::text::bigint as published,
       pg_postmaster_start_time() as server_started_at,
       case when (owner is null) <> (lease_expires_at is null) then 'an owner without a lease, or a lease without an owner'
            when owner is not null and epoch < 1 then 'an owner that no epoch fences'
            when lease_expires_at > now() + interval '1 day' then 'a lease that nobody can take over: it ends at ' || lease_expires_at
            when pg_snapshot_xmax(position_from) > pg_snapshot_xmax(pg_current_snapshot())
                then 'a position that this server has not come to'
            when pg_snapshot_xmax(position_to) < pg_snapshot_xmax(position_from) then 'a round that ends before it begins'
       end as wrong
from outbox_relay order by name";

pub(crate) async fn before(looks: &mut Looks) -> anyhow::Result<Before> {
    let [orders, inventory, payments] = Owner::ALL;
    Ok(Before([
        rows(looks.of(orders)).await?,
        rows(looks.of(inventory)).await?,
        rows(looks.of(payments)).await?,
    ]))
}

async fn rows(conn: &mut PgConnection) -> anyhow::Result<Vec<Row>> {
    Ok(sqlx::query_as(ROWS).fetch_all(conn).await?)
}

/// Later: what the rows have become.
pub(crate) async fn check(looks: &mut Looks, before: Before) -> anyhow::Result<Check> {
    let mut check = Check::new(
        "relay",
        "each relay's row has one owner at a time under an epoch, changes hands only with a new one, and its position goes forward",
    );
    for (owner, before) in Owner::ALL.into_iter().zip(before.0) {
        let now = rows(looks.of(owner)).await?;
        judge(owner.name(), &before, &now, &mut check);
    }
    Ok(check)
}

fn judge(database: &str, before: &[Row], now: &[Row], check: &mut Check) {
    for row in now {
        check.judged += 1;
        let was = before.iter().find(|was| was.name == row.name);
        let restarted = was.is_some_and(|was| was.server_started_at != row.server_started_at);
        if restarted {
            check.not_judged("relays' rows whose server was restarted meanwhile", 1);
        }
        let was = was.filter(|_| !restarted);
        let wrong = row.wrong.clone().or_else(|| was.and_then(|was| went_wrong(was, row)));
        if let Some(wrong) = wrong {
            check.violation(format!("relay {} of {database}: {wrong}", row.name));
        }
    }
}

fn went_wrong(was: &Row, is: &Row) -> Option<String> {
    let Row { epoch, owner, published, .. } = is;
    let changed_hands = was.owner.is_some() && owner.is_some() && was.owner != *owner;
    if *epoch < was.epoch {
        Some(format!("its epoch went back from {} to {epoch}", was.epoch))
    } else if changed_hands && *epoch == was.epoch {
        Some(format!("{} and {} had it under the one epoch {epoch}", told(&was.owner), told(owner)))
    } else if *published < was.published {
        Some(format!("its position went back from transaction {} to {published}", was.published))
    } else {
        None
    }
}

fn told(owner: &Option<String>) -> &str {
    owner.as_deref().unwrap_or("nobody")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: i64, owner: &str, published: i64) -> Row {
        let owner = (!owner.is_empty()).then(|| owner.to_owned());
        let server_started_at = DateTime::UNIX_EPOCH;
        Row { name: "default".to_owned(), epoch, owner, published, wrong: None, server_started_at }
    }

    #[test]
    fn a_lease_changes_hands_only_with_its_epoch_and_nothing_goes_back() {
        for (violations, was, is) in [
            (0, row(1, "a", 10), row(1, "a", 20)),
            (0, row(1, "a", 10), row(2, "b", 10)),
            (0, row(1, "a", 10), row(1, "", 11)),
            (0, row(1, "", 10), row(2, "a", 10)),
            (1, row(1, "a", 10), row(1, "b", 10)),
            (1, row(2, "a", 10), row(1, "a", 10)),
            (1, row(1, "a", 10), row(2, "b", 9)),
        ] {
            let mut check = Check::new("", "");
            judge("orders", std::slice::from_ref(&was), std::slice::from_ref(&is), &mut check);
            assert_eq!((check.judged, check.violations), (1, violations), "{was:?} {is:?}");
        }
        let mut check = Check::new("", "");
        let restarted =
            Row { server_started_at: DateTime::UNIX_EPOCH + chrono::TimeDelta::days(1), ..row(1, "a", 1) };
        judge("orders", &[row(2, "a", 10)], &[restarted], &mut check);
        assert_eq!((check.violations, check.not_judged.len()), (0, 1));
    }
}
