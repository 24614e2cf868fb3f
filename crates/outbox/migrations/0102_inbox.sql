-- The inbox: which messages each consumer group has already taken, and the dead letters.

create table inbox (
    consumer_group text        not null,
    message_id     uuid        not null,
    -- 0 is the main topic's appearance; each retry and each replay of the record adds one.
    hop            smallint    not null default 0,
    received_at    timestamptz not null default now(),
    primary key (consumer_group, message_id, hop)
);

create table dead_letters (
    id             uuid        primary key,
    consumer_group text        not null,
    state          text        not null default 'open' check (state in ('open', 'replaying', 'resolved', 'discarded')),
    topic          text        not null,
    partition      int         not null,
    "offset"       bigint      not null,
    message_id     uuid,
    kind           text,
    key            bytea,
    headers        json        not null,
    payload        bytea,
    error_class    text        not null,
    error_message  text        not null,
    attempts       int         not null,
    first_failed_at timestamptz not null default now(),
    last_failed_at  timestamptz not null default now(),
    unique (consumer_group, topic, partition, "offset")
);

create index dead_letters_open on dead_letters (consumer_group, last_failed_at) where state = 'open';
