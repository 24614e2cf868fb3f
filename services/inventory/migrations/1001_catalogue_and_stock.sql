-- The catalogue, where the pieces of each SKU are, and the ledger of every movement.

-- collate "C": SKUs are compared by bytes, as the program does, so that both sort locks alike.
create table products (
    sku              text collate "C" primary key check (sku ~ '^[A-Za-z0-9._-]{1,64}$'),
    -- Only to page through products of the same microsecond.
    id               uuid        not null,
    name             text        not null check (length(name) between 1 and 200),
    unit_price_minor bigint      not null check (unit_price_minor > 0),
    currency         text        not null check (currency ~ '^[A-Z]{3}$'),
    -- One counter over everything said about the SKU in inventory.events (added, price changed, stock received).
    version          bigint      not null check (version > 0),
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);

create unique index products_newest on products (created_at desc, id desc);

-- Apart from products: reservations update these narrow rows all day, and never need the catalogue's lock.
-- fillfactor leaves room on each page, so that the updates are HOT.
create table stock (
    sku       text collate "C" primary key references products (sku),
    available bigint not null default 0 check (available >= 0),
    reserved  bigint not null default 0 check (reserved >= 0),
    shipped   bigint not null default 0 check (shipped >= 0)
) with (fillfactor = 50);

-- One row per movement, never changed: the sum over it is the stock row, at any time.
create table stock_ledger (
    -- The order; for kind 'receive' the receipt.
    source_id   uuid        not null,
    sku         text collate "C" not null references stock (sku),
    kind        text        not null check (kind in ('receive', 'reserve', 'release', 'commit', 'restock')),
    quantity    int         not null check (quantity > 0),
    recorded_at timestamptz not null default now(),
    -- The natural key: an order moves a SKU in each way at most once, whatever the inbox has forgotten.
    primary key (source_id, sku, kind)
);
