-- The reservation of each order: one row for ever, also for refusals and for releases that came too early.

create table reservations (
    order_id    uuid        primary key,
    -- 1..n, one per reply to the order: the reply's ce_sequence.
    version     bigint      not null check (version > 0),
    state       text        not null check (state in ('reserved', 'rejected', 'released', 'committed', 'restocked')),
    -- [{"sku": "...", "quantity": 2}, ...]: written once and only ever read whole, so no rows of their own; each line's
    -- movements are rows of stock_ledger. Null: nothing was ever held (a refusal, or a tombstone).
    lines       jsonb       check (jsonb_typeof(lines) = 'array'),
    refusal     text,
    refusal_sku text,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    check (lines is not null or state in ('rejected', 'released')),
    check ((state = 'rejected') = (refusal is not null))
) with (fillfactor = 70);
