-- The inbox: which messages each consumer group has already taken; and the dead letters.

-- Partitioned by the message id itself: ours are UUIDv7, which begin with the time of making, so a range of ids is a day,
-- the primary key stays unique over all days, and retention drops whole partitions. Routing a row costs a binary search.
create table inbox (
    consumer_group text        not null,
    message_id     uuid        not null,
    -- 0 is the main topic's appearance; each retry and each replay of the record adds one.
    hop            smallint    not null default 0,
    received_at    timestamptz not null default now(),
    primary key (consumer_group, message_id, hop)
) partition by range (message_id);

-- Ids that are no UUIDv7 of a known day: foreign producers, replays from long ago.
create table inbox_default partition of inbox default;

-- The smallest UUIDv7 of a day (UTC): 48 bits of milliseconds since 1970, then zeros.
create function inbox_day_bound(day date) returns uuid language sql immutable strict parallel safe as $$
    select (lpad(to_hex((extract(epoch from day::timestamp) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the day partitions from `days_behind` days ago (what a new group finds in the topics) to `days_ahead` days ahead.
-- Harmless to repeat; bounded wait for locks. Attached, not created in place, so that writers of other days go on.
create function inbox_partitions_make(days_behind int default 8, days_ahead int default 7) returns int
language plpgsql set lock_timeout = '2s' set timezone = 'UTC' as $$
declare
    day  date;
    name text;
    made int := 0;
begin
    for day in
        select generate_series(current_date - days_behind, current_date + days_ahead, interval '1 day')::date
    loop
        name := 'inbox_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass(name) is not null;
        -- Ids of that day that came before their partition lie in the default one and move over; nobody may add to them.
        lock table inbox_default in access exclusive mode;
        execute format('create table %I (like inbox including defaults)', name);
        execute format(
            'with moved as (delete from inbox_default where message_id >= %1$L and message_id < %2$L returning *)
             insert into %3$I select * from moved', inbox_day_bound(day), inbox_day_bound(day + 1), name);
        execute format('alter table inbox attach partition %I for values from (%L) to (%L)',
                       name, inbox_day_bound(day), inbox_day_bound(day + 1));
        made := made + 1;
    end loop;
    return made;
end $$;

select inbox_partitions_make();

-- Messages that a group could not handle, byte for byte, with what is known about why.
create table dead_letters (
    -- A UUIDv7; also the outbox message_id of the record that mirrors it to the dead letter topic.
    id              uuid        primary key,
    consumer_group  text        not null,
    state           text        not null default 'open' check (state in ('open', 'replaying', 'resolved', 'discarded')),
    topic           text        not null,
    partition       int         not null,
    "offset"        bigint      not null,
    -- Kafka's timestamp: tells apart records of a topic that was deleted and made again.
    record_time     timestamptz,
    -- From the headers, when they could be read.
    message_id      uuid,
    kind            text,
    key             bytea,
    -- Every header in order, nothing lost: an array of {"name", "value"} or, for a value that is no text, {"name", "base64"}.
    headers         json        not null check (json_typeof(headers) = 'array'),
    payload         bytea,
    -- headers, payload, fault, database, panic, or the class a handler rejected it with.
    error_class     text        not null,
    error_message   text        not null,
    attempts        int         not null check (attempts >= 1),
    first_failed_at timestamptz not null default now(),
    last_failed_at  timestamptz not null default now(),
    -- The same record read again is the same dead letter.
    unique nulls not distinct (consumer_group, topic, partition, "offset", record_time)
);

create index dead_letters_open on dead_letters (consumer_group, last_failed_at) where state = 'open';
