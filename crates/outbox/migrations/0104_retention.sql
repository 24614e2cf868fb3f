-- Retention: days are dropped when every relay has published them; and publishing a part of the outbox again.

-- The range partitions of a table with their bounds as text; the default partition is none.
create function partition_bounds(parent regclass)
returns table (partition regclass, name text, lower_bound text, upper_bound text)
language sql stable as $$
    select c.oid::regclass, c.relname::text, b.bounds[1], b.bounds[2]
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join regexp_match(pg_get_expr(c.relpartbound, c.oid),
                            '^FOR VALUES FROM \(''([^'']*)''\) TO \(''([^'']*)''\)$') as b (bounds)
    where i.inhparent = parent and b.bounds is not null
$$;

-- Whether every relay has published every row of a partition that is committed now. False when in doubt: without any
-- relay, with a position from another cluster, and for rows that a relay has published inside an unfinished round.
-- Two index reads, whatever the partition's size.
create function outbox_partition_published(partition regclass) returns boolean
language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    relay   record;
    waiting boolean;
begin
    if not exists (select from outbox_relay) then
        return false;
    end if;
    -- Positions first, rows after: a position only moves on, so an old one errs on the safe side.
    for relay in
        select pg_snapshot_xmax(position_from) as upper, array(select pg_snapshot_xip(position_from)) as running
        from outbox_relay
    loop
        if relay.upper > pg_snapshot_xmax(pg_current_snapshot()) then
            return false;
        end if;
        execute format('select exists (select from %1$s where xid >= $1) or exists (select from %1$s where xid = any ($2))',
                       partition) into waiting using relay.upper, relay.running;
        if waiting then
            return false;
        end if;
    end loop;
    return true;
end $$;

-- The outbox's partitions, oldest first.
create function outbox_partitions()
returns table (name text, starts_at timestamptz, ends_at timestamptz, rows_estimate bigint, bytes bigint, published boolean)
language sql as $$
    select p.name, p.lower_bound::timestamptz, p.upper_bound::timestamptz, greatest(c.reltuples, 0)::bigint,
           pg_total_relation_size(p.partition), outbox_partition_published(p.partition)
    from partition_bounds('outbox') p
    join pg_class c on c.oid = p.partition
    order by p.lower_bound::timestamptz
$$;

-- Drops the oldest partition that ended longer than `keep` ago and that every relay has published; returns its name,
-- null when there is none. Waits for locks at most 200 ms, and holds appends up for no longer; then it fails with
-- lock_not_available: try again later.
create function outbox_partition_drop(keep interval default '7 days') returns text
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
        execute format('drop table %s', old.partition);
        return old.name;
    end loop;
    return null;
end $$;

-- Drops the oldest partition of the inbox whose message ids were made longer than `keep` ago; returns its name, null
-- when there is none. Bounded as outbox_partition_drop. A message of that time that comes again is new to the inbox:
-- keep more than the topics do, and let natural keys make its effects once.
create function inbox_partition_drop(keep interval default '14 days') returns text
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
        execute format('drop table %s', old.partition);
    end if;
    return old.name;
end $$;

-- Forgets, of the ids that are no UUIDv7 of a known day, at most `rows_max` that came longer than `keep` ago; returns how many.
create function inbox_strays_delete(keep interval default '14 days', rows_max int default 10000) returns bigint
language plpgsql as $$
declare
    gone bigint;
begin
    delete from inbox_default
    where ctid = any (array(select ctid from inbox_default where received_at < now() - keep limit rows_max));
    get diagnostics gone = row_count;
    return gone;
end $$;

-- The rows of the outbox that match all that is given; of equal messages on a topic (published again before) the first.
create function outbox_chosen(time_from timestamptz, time_to timestamptz, id_from bigint, id_to bigint, ids uuid[])
returns setof outbox language sql stable as $$
    select distinct on (message_id, topic, headers::text) *
    from outbox
    where created_at >= coalesce(time_from, '-infinity') and created_at < coalesce(time_to, 'infinity')
      and id >= coalesce(id_from, 0) and id <= coalesce(id_to, 9223372036854775807)
      and (ids is null or message_id = any (ids))
    order by message_id, topic, headers::text, id
$$;

-- Appends chosen messages again, unchanged and with the same ids, in the order in which they were published per key (that of
-- their row ids: each aggregate was locked before its append). Harmless: consumers drop ids they know, and a row that is
-- not published yet comes before its repetition. Times are [from, to), ids [from, to]. Dry unless `apply`: then it only
-- tells what is chosen. More than `rows_max` rows fail with program_limit_exceeded, changing nothing.
create function outbox_republish(
    time_from timestamptz default null, time_to timestamptz default null,
    id_from bigint default null, id_to bigint default null,
    ids uuid[] default null, rows_max int default 100000, apply boolean default false)
returns table (topic text, rows bigint, bytes bigint, first_at timestamptz, last_at timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
    chosen_rows   bigint;
    appended_rows bigint;
begin
    if coalesce(time_from, time_to) is null and coalesce(id_from, id_to) is null and ids is null then
        raise exception 'choose a time range, an id range or message ids' using errcode = 'invalid_parameter_value';
    end if;
    -- Counted before anything is sorted, and no further than needed.
    select count(*) into chosen_rows
    from (select from outbox o
          where o.created_at >= coalesce(time_from, '-infinity') and o.created_at < coalesce(time_to, 'infinity')
            and o.id >= coalesce(id_from, 0) and o.id <= coalesce(id_to, 9223372036854775807)
            and (ids is null or o.message_id = any (ids))
          limit rows_max::bigint + 1) as counted;
    if chosen_rows > rows_max then
        raise exception 'more than % rows are chosen: choose less', rows_max using errcode = 'program_limit_exceeded';
    end if;
    return query
        select c.topic, count(*), sum(coalesce(octet_length(c.payload), 0))::bigint, min(c.created_at), max(c.created_at)
        from outbox_chosen(time_from, time_to, id_from, id_to, ids) c
        group by c.topic
        order by c.topic;
    if apply then
        insert into outbox (message_id, topic, key, headers, payload)
        select c.message_id, c.topic, c.key, c.headers, c.payload
        from outbox_chosen(time_from, time_to, id_from, id_to, ids) c
        order by c.id;
        get diagnostics appended_rows = row_count;
        -- Rows that were committed between the two statements.
        if appended_rows > rows_max then
            raise exception 'more than % rows are chosen: choose less', rows_max using errcode = 'program_limit_exceeded';
        end if;
    end if;
end $$;
