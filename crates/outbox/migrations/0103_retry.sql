-- Ordered retry: keys whose head is being retried or is a dead letter, and the messages that wait behind it.

-- One row per parked key and group. Whoever decides about a parked key locks its row first; several in key order.
create table parked_keys (
    consumer_group  text        not null,
    key             bytea       not null check (octet_length(key) between 1 and 1024),
    -- retrying: the head travels through the retry topics; draining: the held messages are handled in order;
    -- blocked: the head is a dead letter, an operator's turn.
    state           text        not null check (state in ('retrying', 'draining', 'blocked')),
    tier            smallint    not null default 0,
    due_at          timestamptz,
    -- The head: which appearance of which message the key waits for. The id is null when its headers can not be read.
    head_message_id uuid,
    head_hop        smallint    not null default 0,
    attempts        int         not null default 0,
    first_failed_at timestamptz,
    last_failed_at  timestamptz,
    error_class     text,
    error_message   text,
    -- What blocks the key, or is being replayed.
    dead_letter_id  uuid,
    held_count      bigint      not null default 0 check (held_count >= 0),
    held_bytes      bigint      not null default 0 check (held_bytes >= 0),
    parked_at       timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    primary key (consumer_group, key)
);

create index parked_keys_draining on parked_keys (consumer_group, updated_at) where state = 'draining';

-- Followers of a parked key, as they came. The foreign key keeps a key parked while anything of it is held.
create table held_messages (
    -- Arrival order of a key: rows are written with its parked row locked.
    id             bigint generated always as identity (cache 1),
    consumer_group text     not null,
    key            bytea    not null,
    message_id     uuid,
    hop            smallint not null,
    topic          text     not null,
    partition      int      not null,
    "offset"       bigint   not null,
    record_time    timestamptz,
    -- As in dead_letters: every header in order, nothing lost.
    headers        json     not null,
    payload        bytea,
    bytes          bigint   not null,
    held_at        timestamptz not null default now(),
    primary key (consumer_group, key, id),
    foreign key (consumer_group, key) references parked_keys (consumer_group, key)
);

-- Which appearance became the dead letter: a replay is the next one.
alter table dead_letters add column hop smallint not null default 0;

-- Takes message ids for a group and looks whether their keys are parked, locking those: one round trip. Rows with a
-- message_id are new to the group; rows with a key tell of parked keys.
-- Two statements with a snapshot each, which is the point: when a concurrent taker of the same ids was waited for, the
-- keys it parked are seen. (One statement would see the ids and not the keys, and handle a parked key's message.)
create function inbox_take(taking_group text, ids uuid[], appearance smallint, keys bytea[])
returns table (message_id uuid, key bytea, state text, tier smallint, head_message_id uuid, head_hop smallint)
language plpgsql as $$
#variable_conflict use_column
begin
    -- Sorted, so that two members with the same ids (after a rebalance) can not lock each other out.
    return query
        insert into inbox (consumer_group, message_id, hop)
        select taking_group, i.id, appearance from unnest(ids) as i (id) order by i.id
        on conflict do nothing
        returning inbox.message_id, null::bytea, null::text, null::smallint, null::uuid, null::smallint;
    -- Usually nothing is parked, and this is all that costs.
    if exists (select from parked_keys p where p.consumer_group = taking_group) then
        return query
            select null::uuid, p.key, p.state, p.tier, p.head_message_id, p.head_hop
            from parked_keys p
            where p.consumer_group = taking_group and p.key = any(keys)
            order by p.key
            for update;
    end if;
end $$;
