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
    overdue(conn, &mut check).await?;
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

/// Whether the relay has not come to what was appended ten minutes ago. Two probes, as it reads.
const RELAY_IS_BEHIND: &str = "
with relay as materialized (
    select position_from from outbox_relay where name = 'default'
), first as (
    (select created_at from outbox
     where xid >= (select pg_snapshot_xmax(position_from) from relay) order by xid, id limit 1)
    union all
    (select created_at from outbox
     where xid = any (array(select pg_snapshot_xip(position_from) from relay)) order by xid, id limit 1)
)
select coalesce(min(created_at) < now() - interval '10 minutes', false) from first";

/// The sweeper looks every second or so: ten minutes past its time, an instance is moved by nobody. Unless the relay is
/// behind: then nothing can be asked of it.
async fn overdue(conn: &mut PgConnection, check: &mut Check) -> anyhow::Result<()> {
    let relay_is_behind: bool = sqlx::query_scalar(RELAY_IS_BEHIND).fetch_one(&mut *conn).await?;
    let mut rows = sqlx::query_scalar::<_, String>(
        "select format('%s %s is %s and was to be moved at %s: is the service away?', saga, key, status, wake_at)
         from saga_instances
         where status in ('running', 'compensating') and wake_at < now() - interval '10 minutes'",
    )
    .fetch(conn);
    while let Some(told) = rows.try_next().await? {
        if relay_is_behind {
            check.not_judged("live sagas overdue by ten minutes while the relay is behind", 1);
        } else {
            check.violation(told);
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::migrate::Migrator;
    use waybill_testkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn a_saga_that_nobody_moves_for_ten_minutes_is_a_fault_unless_the_relay_is_behind() {
        let database = TestDatabase::create("verify_overdue").await;
        for crate_name in ["outbox", "saga"] {
            let folder =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../crates/{crate_name}/migrations"));
            database.migrate(&[&Migrator::new(folder).await.unwrap()]).await;
        }
        let mut conn = database.pool.acquire().await.unwrap();
        let found = async |conn: &mut PgConnection| {
            let mut check = Check::new("", "");
            overdue(conn, &mut check).await.unwrap();
            (check.violations, check.not_judged.values().sum::<u64>())
        };
        let late = "insert into saga_instances (saga, key, version, status, state, data, sequences, correlation_id, wake_at)
                    select 'place-order', gen_random_uuid(), 1, status, '{}', '{}', '{}', gen_random_uuid(), now() - late
                    from unnest(array['running', 'compensating', 'stuck'], array['11 minutes', '9 minutes', '1 day']::interval[])
                         as s (status, late)";
        sqlx::query(late).execute(&mut *conn).await.unwrap();
        assert_eq!(found(&mut conn).await, (1, 0), "nothing waits for the relay");
        let said = "insert into outbox (message_id, topic, key, headers, created_at)
                    values (gen_random_uuid(), 'orders.events', 'k', '{}', now() - make_interval(mins => $1))";
        sqlx::query(said).bind(1).execute(&mut *conn).await.unwrap();
        assert_eq!(found(&mut conn).await, (1, 0), "a minute is nothing");
        sqlx::query("delete from outbox").execute(&mut *conn).await.unwrap();
        sqlx::query(said).bind(11).execute(&mut *conn).await.unwrap();
        assert_eq!(found(&mut conn).await, (0, 1), "the relay is behind");
        let caught_up = "update outbox_relay set position_from = pg_current_snapshot()";
        sqlx::query(caught_up).execute(&mut *conn).await.unwrap();
        assert_eq!(found(&mut conn).await, (1, 0));
    }
}
