-- Idempotency keys: the first answer to a key, kept a day, committed together with the work it answers for.

create table idempotency_keys (
    scope        text        not null,  -- whose key it is: the customer's id; keys of different callers never meet
    endpoint     text        not null,  -- method and route, so that one key may be used on two endpoints
    key          text        not null check (octet_length(key) between 1 and 128),
    request_hash bytea       not null check (octet_length(request_hash) = 32),
    status       smallint    not null check (status between 100 and 599),
    headers      json        not null,
    body         bytea       not null check (octet_length(body) <= 1048576),
    created_at   timestamptz not null default now(),
    primary key (scope, endpoint, key)
);

-- Rows lie in the order of their making, so a few summary bytes per block range find the old ones.
create index idempotency_keys_created_at on idempotency_keys using brin (created_at)
    with (pages_per_range = 16, autosummarize = on);

-- Takes a key with the answer it will have; false when it is taken. For statements that do all their work in one
-- round trip: call it once, in a materialized CTE, and do the rest only where it is true. While another transaction
-- holds the key it waits at most lock_timeout (error 55P03); when that transaction rolls back, the key is free again.
create function idempotency_claim(
    scope text, endpoint text, key text, request_hash bytea, status smallint, headers json, body bytea
) returns boolean
language plpgsql
as $$
begin
    insert into idempotency_keys as k (scope, endpoint, key, request_hash, status, headers, body)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict do nothing;
    return found;
end
$$;
