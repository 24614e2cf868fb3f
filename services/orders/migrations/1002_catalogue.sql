-- What products cost, as inventory.events last told: the only source of prices for new orders.

create table catalogue (
    sku              text        primary key,
    unit_price_minor bigint      not null check (unit_price_minor >= 0),
    currency         text        not null check (currency ~ '^[A-Z]{3}$'),
    -- ce_sequence of the event this row comes from; an older event never overwrites a newer one.
    version          bigint      not null check (version >= 1),
    updated_at       timestamptz not null default now()
);
