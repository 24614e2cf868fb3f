-- Starting reads its argument once for both tables; old sagas can be found by their age.

create or replace function saga_start(instances json) returns void language sql as $$
    with s as materialized (
        select * from json_to_recordset(instances) as s (saga text, key uuid, version int, status text, state json,
            data json, sequences json, due_in_ms bigint, wait_ms bigint, deadline_ms bigint, sent boolean,
            correlation_id uuid, traceparent text, entry json)
        -- Both tables in one order, so that two starts of the same keys wait in one direction.
        order by saga, key
    ), started as (
        insert into saga_instances (saga, key, version, status, state, data, sequences, due_at, wait_ms, deadline_at,
                                    command_xid, wake_at, correlation_id, traceparent)
        select s.saga, s.key, s.version, s.status, s.state, s.data, s.sequences,
               statement_timestamp() + s.due_in_ms * interval '1 millisecond', s.wait_ms,
               statement_timestamp() + s.deadline_ms * interval '1 millisecond',
               case when s.sent then pg_current_xact_id() end,
               statement_timestamp() + least(s.due_in_ms, s.deadline_ms) * interval '1 millisecond',
               s.correlation_id, s.traceparent
        from s
    )
    insert into saga_log (saga, key, entry) select s.saga, s.key, s.entry from s
$$;

-- Rows lie in the order of their making, so a few summary bytes per block range find the old ones.
create index saga_instances_created_at on saga_instances using brin (created_at)
    with (pages_per_range = 16, autosummarize = on);
