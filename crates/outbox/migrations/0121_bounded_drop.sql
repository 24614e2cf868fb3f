-- Dropping a day holds appends up for 200 ms at most: the locks on the table and on its partition have one bound together.

-- Locks a table alone and one of its partitions against everybody, waiting for both together as long as lock_timeout says:
-- who holds the first while it waits for the second holds everybody up. Else fails with lock_not_available. In this order,
-- as readers and writers do it. For functions that set lock_timeout themselves, and so have it back at their end.
create function partition_lock(parent regclass, partition regclass) returns void
language plpgsql as $$
declare
    until   timestamptz := clock_timestamp() + current_setting('lock_timeout')::interval;
    left_ms int;
begin
    execute format('lock table only %s in access exclusive mode', parent);
    left_ms := floor(extract(epoch from until - clock_timestamp()) * 1000);
    if left_ms < 1 then
        raise exception 'no time is left to lock %', partition using errcode = 'lock_not_available';
    end if;
    perform set_config('lock_timeout', left_ms || 'ms', true);
    execute format('lock table %s in access exclusive mode', partition);
end $$;

-- As in 0104_retention.sql, with the locks taken before the drop.
create or replace function outbox_partition_drop(keep interval default '7 days') returns text
language plpgsql set lock_timeout = '200ms' set timezone = 'UTC' as $$
declare
    old record;
begin
    -- Each statement must see what was committed until it began.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'outbox_partition_drop runs in READ COMMITTED only' using errcode = 'invalid_transaction_state';
    end if;
    for old in
        select partition, name from partition_bounds('outbox')
        where upper_bound::timestamptz <= now() - keep
        order by upper_bound::timestamptz
    loop
        continue when not outbox_partition_published(old.partition);
        -- A row's day is that of its transaction's beginning, so an old transaction may still append here, or has and
        -- is open. Those are waited for, later ones kept out (live appends go to other days); readers go on. What is
        -- committed and not published by now is seen by the second look; after it nothing can come.
        execute format('lock table %s in share mode', old.partition);
        continue when not outbox_partition_published(old.partition);
        perform partition_lock('outbox', old.partition);
        execute format('drop table %s', old.partition);
        return old.name;
    end loop;
    return null;
end $$;

create or replace function inbox_partition_drop(keep interval default '14 days') returns text
language plpgsql set lock_timeout = '200ms' as $$
declare
    old record;
begin
    select p.partition, p.name into old
    from partition_bounds('inbox') p
    -- A UUIDv7 begins with 48 bits of milliseconds since 1970.
    cross join lateral (values (('x' || left(replace(p.upper_bound, '-', ''), 12))::bit(48)::bigint)) as e (ends_ms)
    where to_timestamp(e.ends_ms / 1000.0) <= now() - keep
    order by e.ends_ms
    limit 1;
    if found then
        perform partition_lock('inbox', old.partition);
        execute format('drop table %s', old.partition);
    end if;
    return old.name;
end $$;
