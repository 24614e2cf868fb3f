-- Orders and their lines: the aggregate this service owns.

create table orders (
    id          uuid        primary key,
    customer_id uuid        not null,
    status      text        not null check (status in ('PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLING', 'CANCELLED')),
    -- Why it is not simply going on; the two happy states have none.
    reason      text        check (length(reason) between 1 and 64),
    currency    text        not null check (currency ~ '^[A-Z]{3}$'),
    total_minor bigint      not null check (total_minor > 0),
    -- Counts the order's events: ce_sequence in orders.events. Every update adds one.
    version     bigint      not null check (version >= 1),
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    check ((reason is null) = (status in ('PENDING', 'CONFIRMED')))
    -- No index on what changes and room on the page: each change of status is a HOT update.
) with (fillfactor = 70);

-- The customer's list, newest first; also the cursor's order.
create index orders_of_customer on orders (customer_id, created_at desc, id desc);

create table order_lines (
    order_id         uuid   not null references orders (id),
    sku              text   not null check (length(sku) between 1 and 64),
    -- The customer's own order of lines, from 0.
    place            int    not null check (place between 0 and 99),
    quantity         int    not null check (quantity between 1 and 10000),
    -- The price when the order was placed; later changes of the catalogue leave it alone.
    unit_price_minor bigint not null check (unit_price_minor >= 0),
    -- One line per SKU, by key; at most 100 lines are sorted by place when read.
    primary key (order_id, sku)
);
