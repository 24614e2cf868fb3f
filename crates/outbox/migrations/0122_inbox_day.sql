-- Making the inbox's days holds up only ids of no known day, and those for one reading of where they lie: a day at a time.

-- Makes the first day partition that is missing of those from `days_behind` days ago to `days_ahead` days ahead; returns its
-- name, null when none is missing. Harmless to repeat, bounded wait for locks. One day a transaction: attaching it looks
-- through the default partition, whose readers and writers wait until the transaction ends.
create function inbox_partition_make(days_behind int default 8, days_ahead int default 7) returns text
language plpgsql set lock_timeout = '2s' set timezone = 'UTC' as $$
declare
    day  date;
    name text;
begin
    select d::date, 'inbox_' || to_char(d, 'YYYYMMDD') into day, name
    from generate_series(current_date - days_behind, current_date + days_ahead, interval '1 day') as d
    where to_regclass('inbox_' || to_char(d, 'YYYYMMDD')) is null
    order by d
    limit 1;
    if not found then
        return null;
    end if;
    execute format('create table %I (like inbox including defaults)', name);
    begin
        execute format('alter table inbox attach partition %I for values from (%L) to (%L)',
                       name, inbox_day_bound(day), inbox_day_bound(day + 1));
    exception when check_violation then
        -- Ids of that day came before their partition: they move over, and nobody may add to them.
        lock table inbox_default in access exclusive mode;
        execute format(
            'with moved as (delete from inbox_default where message_id >= %1$L and message_id < %2$L returning *)
             insert into %3$I select * from moved', inbox_day_bound(day), inbox_day_bound(day + 1), name);
        execute format('alter table inbox attach partition %I for values from (%L) to (%L)',
                       name, inbox_day_bound(day), inbox_day_bound(day + 1));
    end;
    return name;
end $$;

-- All of them in one transaction, for a database that nobody works with.
create or replace function inbox_partitions_make(days_behind int default 8, days_ahead int default 7) returns int
language plpgsql as $$
declare
    made int := 0;
begin
    while inbox_partition_make(days_behind, days_ahead) is not null loop
        made := made + 1;
    end loop;
    return made;
end $$;
