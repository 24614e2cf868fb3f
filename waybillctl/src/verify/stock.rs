//! Pieces: every shelf is the sum of its ledger, and every reservation has the movements that its state says.

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::report::Check;

/// Per SKU: receipts = available + reserved + shipped, and the ledger's sums are the stock row.
pub(crate) async fn shelves(conn: &mut PgConnection) -> anyhow::Result<Check> {
    let mut check = Check::new(
        "stock",
        "receipts = available + reserved + shipped of every SKU, as the ledger adds up, and none is negative",
    );
    let mut rows = sqlx::query_as::<_, (String, bool, String)>(
        "select s.sku,
                s.available >= 0 and s.reserved >= 0 and s.shipped >= 0
                and coalesce(l.received, 0) = s.available + s.reserved + s.shipped
                and s.reserved = coalesce(l.reserved - l.released - l.committed, 0)
                and s.shipped = coalesce(l.committed - l.restocked, 0),
                format('%s: available %s, reserved %s, shipped %s; ledger: received %s, reserved %s, released %s, committed %s, restocked %s',
                       s.sku, s.available, s.reserved, s.shipped, l.received, l.reserved, l.released, l.committed, l.restocked)
         from stock s
         left join (select sku,
                           coalesce(sum(quantity) filter (where kind = 'receive'), 0) as received,
                           coalesce(sum(quantity) filter (where kind = 'reserve'), 0) as reserved,
                           coalesce(sum(quantity) filter (where kind = 'release'), 0) as released,
                           coalesce(sum(quantity) filter (where kind = 'commit'), 0) as committed,
                           coalesce(sum(quantity) filter (where kind = 'restock'), 0) as restocked
                    from stock_ledger group by sku) l using (sku)",
    )
    .fetch(conn);
    while let Some((_, holds, told)) = rows.try_next().await? {
        check.judged += 1;
        if !holds {
            check.violation(told);
        }
    }
    Ok(check)
}

/// Per order: the movements in the ledger are those of the reservation's lines and state.
pub(crate) async fn reservations(conn: &mut PgConnection) -> anyhow::Result<Check> {
    let mut check = Check::new(
        "reservations",
        "each order's movements in the ledger are its reservation's lines, each moved once, as its state says",
    );
    // Both sides grouped by order. `moved`: pieces by kind; `lines`: how many lines, how many pieces.
    let mut rows = sqlx::query_as::<_, (bool, String)>(
        "with moved as (
             select source_id as order_id,
                    coalesce(sum(quantity) filter (where kind = 'reserve'), 0) as reserved,
                    coalesce(sum(quantity) filter (where kind = 'release'), 0) as released,
                    coalesce(sum(quantity) filter (where kind = 'commit'), 0) as committed,
                    coalesce(sum(quantity) filter (where kind = 'restock'), 0) as restocked,
                    count(*) filter (where kind = 'reserve') as reserve_lines
             from stock_ledger where kind <> 'receive' group by source_id
         ), held as (
             select order_id, state,
                    (select coalesce(sum((line->>'quantity')::bigint), 0) from jsonb_array_elements(lines) line) as pieces,
                    coalesce(jsonb_array_length(lines), 0) as lines
             from reservations
         )
         select coalesce(h.order_id is not null
                  and coalesce(m.reserved, 0) = h.pieces
                  and coalesce(m.reserve_lines, 0) = h.lines
                  and coalesce(m.released, 0) = case h.state when 'released' then h.pieces else 0 end
                  and coalesce(m.committed, 0) = case when h.state in ('committed', 'restocked') then h.pieces else 0 end
                  and coalesce(m.restocked, 0) = case h.state when 'restocked' then h.pieces else 0 end, false),
                format('order %s: reservation %s of %s pieces; ledger: reserved %s, released %s, committed %s, restocked %s',
                       order_id, coalesce(h.state, 'missing'), h.pieces, m.reserved, m.released, m.committed, m.restocked)
         from held h full join moved m using (order_id)",
    )
    .fetch(conn);
    while let Some((holds, told)) = rows.try_next().await? {
        check.judged += 1;
        if !holds {
            check.violation(told);
        }
    }
    Ok(check)
}
