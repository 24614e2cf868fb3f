-- What the sandbox provider remembers, as a real provider does on its own servers. Nothing of payments reads it.

create table sandbox_authorizations (
    -- The idempotency key of the authorization.
    key            text        primary key,
    state          text        not null check (state in ('pending', 'approved', 'declined', 'voided')),
    reason         text,
    reference      text        not null default 'sbx_' || replace(gen_random_uuid()::text, '-', ''),
    amount_minor   bigint,
    captured_minor bigint      not null default 0 check (captured_minor >= 0 and captured_minor <= amount_minor),
    refunded_minor bigint      not null default 0 check (refunded_minor >= 0 and refunded_minor <= captured_minor),
    calls          int         not null default 0,
    created_at     timestamptz not null default now()
);
