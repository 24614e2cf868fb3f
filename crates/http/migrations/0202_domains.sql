-- The keys' limits as domains: a table's checks are parsed anew by every statement that writes it, a domain's once by
-- each session. The limits and the names of the constraints stay.

create domain idempotency_key as text constraint idempotency_keys_key_check
    check (octet_length(value) between 1 and 128);
create domain idempotency_hash as bytea constraint idempotency_keys_request_hash_check check (octet_length(value) = 32);
create domain idempotency_status as smallint constraint idempotency_keys_status_check check (value between 100 and 599);
create domain idempotency_body as bytea constraint idempotency_keys_body_check check (octet_length(value) <= 1048576);

alter table idempotency_keys
    drop constraint idempotency_keys_key_check,
    drop constraint idempotency_keys_request_hash_check,
    drop constraint idempotency_keys_status_check,
    drop constraint idempotency_keys_body_check,
    alter column key type idempotency_key,
    alter column request_hash type idempotency_hash,
    alter column status type idempotency_status,
    alter column body type idempotency_body;
