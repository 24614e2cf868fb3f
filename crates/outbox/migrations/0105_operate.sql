-- What operators work with: failure groups, patches beside dead letters, replays, the audit, and facts about one story.

-- An error message without what differs from one message to the next: quoted texts, UUIDs, hexadecimal and decimal
-- numbers become placeholders. Messages that are equal then failed alike.
create function dead_letter_normalised(message text) returns text immutable strict parallel safe
return regexp_replace(regexp_replace(regexp_replace(regexp_replace(message,
    '"[^"]*"|(?<!\w)''[^'']*''|`[^`]*`', '<text>', 'g'),
    '\m[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\M', '<uuid>', 'gi'),
    -- With 0x before it, or long and with both digits and letters: `facade` is a word, 123456 a number.
    '\m0x[0-9a-f]+\M|\m(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{6,}\M', '<hex>', 'gi'),
    '[0-9]+(?:\.[0-9]+)*', '<n>', 'g');

-- 16 hexadecimal digits that name a group of dead letters with one cause. chr(31) can not stand in a name.
create function dead_letter_group(consumer_group text, kind text, error_class text, message text)
returns text immutable parallel safe
return left(encode(sha256(convert_to(
    concat_ws(chr(31), consumer_group, coalesce(kind, ''), error_class, dead_letter_normalised(message)), 'UTF8')), 'hex'), 16);

-- The last header of a name, when its value is text.
create function dead_letter_header(headers json, name text) returns text immutable strict parallel safe
return (select h.header ->> 'value'
        from json_array_elements(headers) with ordinality as h (header, place)
        where h.header ->> 'name' = dead_letter_header.name
        order by h.place desc limit 1);

create function dead_letter_correlation_id(headers json) returns uuid immutable strict parallel safe
return case when dead_letter_header(headers, 'ce_correlationid')
                 ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
            then dead_letter_header(headers, 'ce_correlationid')::uuid end;

-- Generated, so that whatever version of a service writes a letter, and letters from before, have them. The table is
-- rewritten once, under a lock; dead letters are few.
alter table dead_letters
    add column error_normalised text generated always as (dead_letter_normalised(error_message)) stored,
    add column failure_group text
        generated always as (dead_letter_group(consumer_group, kind, error_class, error_message)) stored,
    add column correlation_id uuid generated always as (dead_letter_correlation_id(headers)) stored,
    add column trace_id text generated always as
        (substring(dead_letter_header(headers, 'traceparent') from '^[0-9a-f]{2}-([0-9a-f]{32})-')) stored;

create index dead_letters_failure_group on dead_letters (failure_group, id) where state = 'open';
create index dead_letters_key on dead_letters (consumer_group, key);
create index dead_letters_correlation_id on dead_letters (correlation_id);

-- What a replay sends instead of the original payload. The original is never changed.
create table dead_letter_patches (
    dead_letter_id uuid        primary key references dead_letters (id) on delete cascade,
    -- As in the outbox, through which it goes.
    payload        bytea       not null check (octet_length(payload) <= 917504),
    edited_by      text        not null,
    edited_at      timestamptz not null default now(),
    reason         text        not null
);

-- A replay as an operation: what it is to send was fixed when it was made. All its state is here, so that any instance of
-- the service goes on with it.
create table replays (
    -- A UUIDv7.
    id                  uuid        primary key,
    state               text        not null default 'running'
        check (state in ('running', 'paused', 'stopped', 'finished', 'cancelled')),
    filter              json        not null,
    reason              text        not null,
    requested_by        text        not null,
    rate_per_s          int         not null check (rate_per_s between 1 and 1000),
    ramp                boolean     not null,
    stop_after_failures int         not null check (stop_after_failures >= 1),
    stop_reason         text,
    -- How many steps of the ramp were begun, and what may still be sent in the present one.
    ramp_step           int         not null default 0,
    step_left           int         not null default 0,
    -- The rate limit: nothing is sent before.
    next_send_at        timestamptz not null default now(),
    -- Failures from before do not count.
    resumed_at          timestamptz not null default now(),
    created_at          timestamptz not null default now(),
    updated_at          timestamptz not null default now()
);

create index replays_running on replays (id) where state = 'running';

-- One target of a replay. Those of one key are sent in the order of their numbers, each when the one before is resolved.
create table replay_items (
    replay_id      uuid        not null references replays (id) on delete cascade,
    number         int         not null,
    dead_letter_id uuid        not null,
    consumer_group text        not null,
    key            bytea,
    -- skipped: somebody else has dealt with it, or it can not be sent.
    state          text        not null default 'pending'
        check (state in ('pending', 'sent', 'resolved', 'failed', 'skipped')),
    -- Which appearance was sent.
    hop            smallint,
    sent_at        timestamptz,
    settled_at     timestamptz,
    why            text,
    primary key (replay_id, number)
);

create index replay_items_state on replay_items (replay_id, state, number);
-- What waits for a verdict.
create index replay_items_sent on replay_items (replay_id) where state = 'sent';
-- What of a key stands before an item.
create index replay_items_key on replay_items (replay_id, consumer_group, key, number)
    where state in ('pending', 'sent', 'failed');
create index replay_items_dead_letter on replay_items (dead_letter_id);

-- Who changed what by hand, why, and what came of it; written in the transaction of the change. Append-only.
create table operator_audit (
    id       bigint generated always as identity primary key,
    at       timestamptz not null default clock_timestamp(),
    subject  text        not null,
    action   text        not null,
    target   text        not null,
    reason   text        not null check (length(reason) between 1 and 500),
    outcome  text        not null,
    trace_id text
);

-- Finds the outbox rows of a key: a few hundred bytes of summary per 32 pages, written when the pages are full, so that
-- an append pays next to nothing. Rows lie in the order of their making, so the times narrow it further.
create index outbox_facts on outbox
    using brin (created_at timestamptz_minmax_ops,
                key bytea_bloom_ops (n_distinct_per_range = 200, false_positive_rate = 0.01))
    with (pages_per_range = 32, autosummarize = on);
