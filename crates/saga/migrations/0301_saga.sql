-- Sagas: one row per instance, the log of everything that happened to it, and the function that starts instances.

create table saga_instances (
    saga           text        not null,
    key            uuid        not null,
    -- The version of the definition the instance began with; it ends on the same one.
    version        int         not null,
    -- Grows with every save; a save checks it.
    revision       bigint      not null default 1,
    status         text        not null
        check (status in ('running', 'compensating', 'completed', 'compensated', 'stuck', 'abandoned')),
    state          json        not null,
    data           json        not null check (octet_length(data::text) <= 65536),
    -- The last ce_sequence used, by topic.
    sequences      json        not null,
    -- All times below are the database's. due_at: the step's deadline, or the end of its back-off.
    due_at         timestamptz,
    -- The step's deadline in milliseconds; due_at is set from it when the command is seen to be published.
    wait_ms        bigint,
    -- The whole saga's deadline; null when it has none, when it has been told, or when the saga has ended.
    deadline_at    timestamptz,
    -- The transaction that appended the command waited for; null when its publication has been seen.
    command_xid    xid8,
    -- When the command's publication was last looked for: until it is seen, the saga's clock stands still.
    looked_at      timestamptz not null default statement_timestamp(),
    -- When the sweeper looks next: not later than due_at and deadline_at. It is not moved when they move into the future,
    -- so that the updates of a saga that runs without delay touch no index (heap-only tuples).
    wake_at        timestamptz,
    -- When the first attempt of the present step began.
    step_at        timestamptz not null default statement_timestamp(),
    correlation_id uuid        not null,
    traceparent    text,
    created_at     timestamptz not null default statement_timestamp(),
    updated_at     timestamptz not null default statement_timestamp(),
    primary key (saga, key)
) with (fillfactor = 60);

create index saga_instances_wake on saga_instances (saga, wake_at) where wake_at is not null;
create index saga_instances_stuck on saga_instances (saga, key) where status = 'stuck';

-- Append-only. `number` orders the entries of one instance: it is drawn while the instance is locked.
create table saga_log (
    saga   text        not null,
    key    uuid        not null,
    number bigint      generated always as identity (cache 1),
    at     timestamptz not null default statement_timestamp(),
    entry  json        not null,
    primary key (saga, key, number)
);

-- Starts instances in the caller's transaction; one argument, so that it fits into any statement with one round trip.
-- instances: an array of objects as the runner makes them. An instance that exists already is a unique violation (23505).
create function saga_start(instances json) returns void language sql as $$
    insert into saga_instances (saga, key, version, status, state, data, sequences, due_at, wait_ms, deadline_at,
                                command_xid, wake_at, correlation_id, traceparent)
    select s.saga, s.key, s.version, s.status, s.state, s.data, s.sequences,
           statement_timestamp() + s.due_in_ms * interval '1 millisecond', s.wait_ms,
           statement_timestamp() + s.deadline_ms * interval '1 millisecond',
           case when s.sent then pg_current_xact_id() end,
           statement_timestamp() + least(s.due_in_ms, s.deadline_ms) * interval '1 millisecond',
           s.correlation_id, s.traceparent
    from json_to_recordset(instances) as s (saga text, key uuid, version int, status text, state json, data json,
         sequences json, due_in_ms bigint, wait_ms bigint, deadline_ms bigint, sent boolean, correlation_id uuid,
         traceparent text)
    order by s.saga, s.key;
    insert into saga_log (saga, key, entry)
    select s.saga, s.key, s.entry
    from json_to_recordset(instances) as s (saga text, key uuid, entry json)
    order by s.saga, s.key;
$$;
