//! Idempotency keys: one order each. Keys are forgotten after a day, orders are not.

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::report::Check;

/// Both sides of one snapshot: they are written by one statement.
pub(crate) async fn check(conn: &mut PgConnection) -> anyhow::Result<Check> {
    let mut check =
        Check::new("keys", "one order per idempotency key, one key per order of the last 23 hours");
    let mut rows = sqlx::query_as::<_, (bool, bool, String)>(
        "select k.key is null and o.created_at < now() - interval '23 hours',
                k.key is not null and o.currency is not null
                and count(*) over (partition by coalesce(k.id, o.id)) = 1,
                format('order %s: %s, %s', coalesce(k.id, o.id), coalesce('key ' || k.key, 'no key'),
                       case when o.currency is null then 'and no such order of this customer' else 'the order is there' end)
         from (select (convert_from(body, 'UTF8')::json->>'id')::uuid as id, scope::uuid as customer_id, key
               from idempotency_keys where endpoint = 'POST /api/v1/orders' and status between 200 and 299) k
         full join orders o using (id, customer_id)",
    )
    .fetch(conn);
    while let Some((old, holds, told)) = rows.try_next().await? {
        if old {
            check.not_judged("orders whose keys may be forgotten", 1);
            continue;
        }
        check.judged += 1;
        if !holds {
            check.violation(told);
        }
    }
    Ok(check)
}
