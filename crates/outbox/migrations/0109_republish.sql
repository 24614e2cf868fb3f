-- outbox_republish over topics that are of a domain (0107): what it returns is text, and a query must say so. Otherwise as in
-- 0104.

create or replace function outbox_republish(
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
        select c.topic::text, count(*), sum(coalesce(octet_length(c.payload), 0))::bigint, min(c.created_at), max(c.created_at)
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
