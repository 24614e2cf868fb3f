-- The payments of each order, and what is still to be asked of the provider.

create table payments (
    order_id       uuid        not null,
    -- Which payment of the order, from 1 up. With the order it is the natural key: whatever the inbox has forgotten,
    -- a repeated command finds its payment here.
    attempt        int         not null check (attempt > 0),
    -- 1..n over all payments of the order, one per reply: the reply's ce_sequence. 0: nothing was said yet.
    version        bigint      not null check (version >= 0),
    state          text        not null check (state in ('authorizing', 'authorized', 'declined', 'giving_up', 'failed',
                                                         'voiding', 'voided', 'capturing', 'captured', 'refunding', 'refunded')),
    reason         text,
    -- The provider's name for what it holds.
    reference      text,
    -- Null in the tombstone of a void that came before its authorization.
    customer_id    uuid,
    amount_minor   bigint      check (amount_minor > 0),
    currency       text        check (currency ~ '^[A-Z]{3}$'),
    payment_token  text,
    captured_minor bigint      not null default 0 check (captured_minor >= 0 and captured_minor <= amount_minor),
    refunded_minor bigint      not null default 0 check (refunded_minor >= 0 and refunded_minor <= captured_minor),
    -- What a refund in progress gives back.
    refund_minor   bigint      check (refund_minor > 0 and refund_minor <= captured_minor),
    -- When the worker is to ask the provider (again); null: nothing to ask, or given up until a command comes.
    -- Taking the work pushes it past the call's time limit, so that a killed worker's work is taken up again.
    due_at         timestamptz,
    tries          int         not null default 0,
    -- Of the command that waits for the answer: the reply's cause.
    correlation_id uuid        not null,
    causation_id   uuid,
    traceparent    text,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    primary key (order_id, attempt)
) with (fillfactor = 70);

create index payments_due on payments (due_at) where due_at is not null;
