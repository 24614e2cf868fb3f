-- After a restore into another cluster: rows and positions of transactions that it has not had, mended.

-- Transaction ids are a cluster's own. Tables moved by dump and restore bring ids that the new cluster has yet to give
-- out; relays stop there (docs/relay.md, "After a restore"). This gives rows that every relay had published the id 3,
-- which every snapshot sees, all others its own, and every relay the present snapshot: what was published before the dump
-- stays published, everything else is published once, in its order. Writers wait meanwhile.
-- Run by the tables' owner, before anything else in its transaction. Dry unless `apply`: then it only counts. Where
-- nothing is from another cluster, nothing is changed and no row returned. Waits for writers 10 s at most; then it fails
-- with lock_not_available: try again.
create function outbox_mend_restored(apply boolean default false)
returns table (published bigint, unpublished bigint, written_since bigint, relays bigint)
language plpgsql set lock_timeout = '10s' as $$
declare
    present     pg_snapshot;
    restored_id bigint;
begin
    -- The snapshot must be newer than the lock, and older than this transaction's id: its rows are not published.
    if current_setting('transaction_isolation') <> 'read committed' or pg_current_xact_id_if_assigned() is not null then
        raise exception 'outbox_mend_restored runs in READ COMMITTED, before any write of its transaction'
            using errcode = 'invalid_transaction_state';
    end if;
    if apply then
        lock table outbox in share row exclusive mode;
    end if;
    present := pg_current_snapshot();
    -- Rows of transactions that are yet to come were restored, and with them all below; rows above were written since.
    select coalesce(max(o.id), 0) into restored_id from outbox o where o.xid >= pg_snapshot_xmax(present);
    if restored_id = 0 and not exists (
        select from outbox_relay r
        where greatest(pg_snapshot_xmax(r.position_from), pg_snapshot_xmax(r.position_to)) > pg_snapshot_xmax(present))
    then
        return;
    end if;
    return query
        select count(*) filter (where p.restored and p.everywhere), count(*) filter (where p.restored and not p.everywhere),
               count(*) filter (where not p.restored), (select count(*) from outbox_relay)
        from (select o.id <= restored_id as restored, outbox_published_everywhere(o.xid, o.id) as everywhere from outbox o) p;
    if apply then
        update outbox o
        set xid = case when o.id <= restored_id and outbox_published_everywhere(o.xid, o.id)
                       then '3'::xid8 else pg_current_xact_id() end;
        -- A relay that still runs on the old position is fenced off.
        update outbox_relay
        set position_from = present, position_to = null, position_id = 0, epoch = epoch + 1, updated_at = clock_timestamp();
    end if;
end $$;

-- Whether every relay's position sees a row, in a finished round or in the one it is in; false where there is no relay.
create function outbox_published_everywhere(row_xid xid8, row_id bigint) returns boolean
language sql stable as $$
    select coalesce(bool_and(
        pg_visible_in_snapshot(row_xid, r.position_from)
        or (r.position_to is not null and pg_visible_in_snapshot(row_xid, r.position_to) and row_id <= r.position_id)), false)
    from outbox_relay r
$$;
