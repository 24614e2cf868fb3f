-- The outbox: committed messages waiting to be published, append-only; the relay's position; the append function.

-- Rows are never updated or deleted: retention drops whole day partitions.
create table outbox (
    id         bigint generated always as identity (cache 1),
    -- Which transaction wrote the row: the relay reads by the difference of two snapshots (docs/relay.md).
    xid        xid8        not null default pg_current_xact_id(),
    message_id uuid        not null,
    topic      text        not null check (length(topic) between 1 and 249),
    key        bytea       check (octet_length(key) <= 1024),
    -- One JSON object of strings; json, not jsonb: kept byte for byte, in order.
    headers    json        not null check (json_typeof(headers) = 'object' and octet_length(headers::text) <= 32768),
    -- Below a topic's max.message.bytes of 1,048,588 with headers and framing, so the broker can not refuse it.
    payload    bytea       check (octet_length(payload) <= 917504),
    created_at timestamptz not null default now(),
    primary key (id, created_at)
) partition by range (created_at);

-- With id: the relay reads a bulk transaction's rows in id order, piece by piece, without sorting them each time.
create index outbox_xid on outbox (xid, id);

-- Makes the day partitions from yesterday to `days_ahead` days ahead. Harmless to repeat, bounded wait for locks.
-- Attached, not created in place: that would wait for every reader and writer of the outbox, and hold up those behind it.
create function outbox_partitions_make(days_ahead int default 7) returns int
language plpgsql set lock_timeout = '2s' set timezone = 'UTC' as $$
declare
    day  date;
    name text;
    made int := 0;
begin
    for day in select generate_series(current_date - 1, current_date + days_ahead, interval '1 day')::date loop
        name := 'outbox_' || to_char(day, 'YYYYMMDD');
        if to_regclass(name) is null then
            execute format('create table %I (like outbox including defaults including constraints)', name);
            execute format('alter table outbox attach partition %I for values from (%L) to (%L)',
                           name, day::timestamptz, (day + 1)::timestamptz);
            made := made + 1;
        end if;
    end loop;
    return made;
end $$;

select outbox_partitions_make();

-- Appends messages, in the order of the arrays, in the caller's transaction. headers: one JSON object per message.
-- The caller has locked (or version-checked) each message's aggregate before: that makes id order the order of commits.
create function outbox_append(message_ids uuid[], topics text[], keys bytea[], headers text[], payloads bytea[])
returns void language sql as $$
    insert into outbox (message_id, topic, key, headers, payload)
    select m.message_id, m.topic, m.key, m.headers::json, m.payload
    from unnest(message_ids, topics, keys, headers, payloads) with ordinality
        as m (message_id, topic, key, headers, payload, place)
    order by m.place
$$;

-- The relay's position and lease. One row per relay name; no index on what changes, room on the page: HOT updates.
create table outbox_relay (
    name             text primary key,
    -- Everything visible in position_from is published and acknowledged.
    position_from    pg_snapshot not null default '1:1:',
    -- Inside a round: rows visible in position_to, not in position_from, up to position_id are published.
    position_to      pg_snapshot,
    position_id      bigint      not null default 0,
    epoch            bigint      not null default 0,
    owner            text,
    lease_expires_at timestamptz,
    updated_at       timestamptz not null default now()
) with (fillfactor = 20);

insert into outbox_relay (name) values ('default');
