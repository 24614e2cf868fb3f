//! Payments against what the sandbox provider remembers; a real provider's books are compared by its own export.

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::report::Check;

/// Only payments that nothing is to be asked about: a call under way is known to the provider first.
pub(crate) async fn check(conn: &mut PgConnection) -> anyhow::Result<Check> {
    let mut check = Check::new(
        "provider",
        "the provider took and gave back what payments recorded, and holds nothing for a payment that has ended",
    );
    let there: bool = sqlx::query_scalar("select to_regclass('sandbox_authorizations') is not null")
        .fetch_one(&mut *conn)
        .await?;
    if !there {
        check.not_judged("the provider is not the sandbox", 1);
        return Ok(check);
    }
    let mut rows = sqlx::query_as::<_, (bool, bool, String)>(
        "select p.due_at is not null or coalesce(p.state in ('authorizing', 'giving_up', 'voiding', 'capturing', 'refunding'), false),
                coalesce(p.order_id is not null
                    and coalesce(s.captured_minor, 0) = p.captured_minor
                    and coalesce(s.refunded_minor, 0) = p.refunded_minor
                    and case when p.state in ('authorized', 'captured', 'refunded') then s.state = 'approved'
                             when p.state = 'declined' then s.state = 'declined'
                             else s.state is distinct from 'approved' end, false),
                format('%s: provider %s, captured %s, refunded %s; payment %s, captured %s, refunded %s',
                       coalesce(s.key, p.order_id || ':' || p.attempt), coalesce(s.state, 'knows nothing'), s.captured_minor,
                       s.refunded_minor, coalesce(p.state, 'missing'), p.captured_minor, p.refunded_minor)
         from sandbox_authorizations s full join payments p on s.key = p.order_id || ':' || p.attempt",
    )
    .fetch(conn);
    while let Some((moves, holds, told)) = rows.try_next().await? {
        if moves {
            check.not_judged("the provider is being asked", 1);
            continue;
        }
        check.judged += 1;
        if !holds {
            check.violation(told);
        }
    }
    Ok(check)
}
