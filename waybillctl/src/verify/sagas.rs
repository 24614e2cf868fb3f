//! Sagas and orders of one snapshot: each saga has ended or has somebody who moves it, and each order has the sagas its
//! status asks for.

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection};

use super::report::{Check, Waits};

pub(crate) async fn check(conn: &mut PgConnection, waits: &mut Waits) -> anyhow::Result<Check> {
    let mut check = Check::new(
        "sagas",
        "every saga has ended or will be moved (a deadline, a command on its way, an operator), as its order's status says",
    );
    // The sweeper looks every second or so: ten minutes past its time, an instance is moved by nobody at present.
    let overdue: i64 = sqlx::query_scalar(
        "select count(*) from saga_instances
         where status in ('running', 'compensating') and wake_at < now() - interval '10 minutes'",
    )
    .fetch_one(&mut *conn)
    .await?;
    check.not_judged(
        "live sagas overdue by ten minutes: is the service away, or the relay?",
        u64::try_from(overdue)?,
    );
    let stuck: i64 = sqlx::query_scalar("select count(*) from saga_instances where status = 'stuck'")
        .fetch_one(&mut *conn)
        .await?;
    if stuck > 0 {
        waits.insert("stuck sagas", u64::try_from(stuck)?);
    }
    owned(conn, &mut check).await?;
    orders(conn, &mut check).await?;
    Ok(check)
}

/// A live instance is found by the sweeper through `wake_at`; an ended or stuck one is left alone.
async fn owned(conn: &mut PgConnection, check: &mut Check) -> anyhow::Result<()> {
    let mut rows = sqlx::query_scalar::<_, String>(
        "select format('%s %s is %s, wakes at %s', saga, key, status, coalesce(wake_at::text, 'no time'))
         from saga_instances
         where (status in ('running', 'compensating') and wake_at is null)
            or (status in ('completed', 'compensated', 'abandoned') and due_at is not null)",
    )
    .fetch(conn);
    while let Some(told) = rows.try_next().await? {
        check.violation(told);
    }
    Ok(())
}

/// Whether an order `o`, with what is left of its sagas in `p` and `c`, came to its end so long ago that these may be deleted.
/// Its time of change is its service's clock, which may be a little ahead of the database's.
pub(super) const GONE: &str = "coalesce(o.status in ('CONFIRMED', 'REJECTED', 'CANCELLED')
     and o.updated_at < (select ended_before + interval '1 minute' from saga_horizon)
     and coalesce(p.status in ('completed', 'compensated', 'abandoned'), true)
     and coalesce(c.status in ('completed', 'compensated', 'abandoned'), true), false)";

async fn orders(conn: &mut PgConnection, check: &mut Check) -> anyhow::Result<()> {
    let question = format!(
        "select coalesce(p.status = 'abandoned' or c.status = 'abandoned', false),
                (p.status is null or c.status is null) and {GONE},
                coalesce(case o.status
                    when 'PENDING' then p.status in ('running', 'compensating', 'stuck') and c.status is null
                    when 'CONFIRMED' then p.status in ('running', 'completed', 'stuck') and c.status is null
                    when 'REJECTED' then p.status in ('compensating', 'compensated', 'stuck') and c.status is null
                    when 'CANCELLING' then p.status in ('running', 'compensating', 'stuck')
                                           or (p.status = 'completed' and c.status in ('running', 'stuck'))
                    when 'CANCELLED' then p.status in ('compensated', 'completed')
                                          and (p.status = 'compensated') = (c.status is null)
                                          and coalesce(c.status, 'completed') = 'completed'
                end, false),
                format('order %s is %s: place-order %s, cancel-order %s', coalesce(o.id, p.key, c.key),
                       coalesce(o.status, 'missing'), coalesce(p.status, 'none'), coalesce(c.status, 'none'))
         from orders o
         full join (select key, status from saga_instances where saga = 'place-order') p on p.key = o.id
         full join (select key, status from saga_instances where saga = 'cancel-order') c on c.key = coalesce(o.id, p.key)"
    );
    let mut rows = sqlx::query_as::<_, (bool, bool, bool, String)>(AssertSqlSafe(question)).fetch(conn);
    while let Some((abandoned, may_be_gone, holds, told)) = rows.try_next().await? {
        if abandoned {
            check.not_judged("orders whose saga an operator abandoned", 1);
            continue;
        }
        if may_be_gone {
            check.not_judged("orders whose sagas ended so long ago that they are deleted", 1);
            continue;
        }
        check.judged += 1;
        if !holds {
            check.violation(told);
        }
    }
    Ok(())
}
