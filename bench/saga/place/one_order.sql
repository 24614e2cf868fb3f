-- One order in one statement, as a program would write it that gathers nothing: what the endpoint is held against.
with priced as materialized (
    -- No lock: a price that changes before the commit comes too late for this order.
    select not $24 or count(*) = cardinality($15::text[]) as same
    from unnest($15::text[], $17::bigint[]) as l (sku, unit_price_minor)
    join catalogue c on c.sku = l.sku and c.unit_price_minor = l.unit_price_minor and c.currency = $11
), claim as materialized (
    -- The key comes next: a second request with it waits here, and writes nothing once the first has committed.
    select idempotency_claim($1, $2, $3, $4, $5, $6::json, $7) as won from priced where same
), placed as (
    insert into orders (id, customer_id, status, currency, total_minor, version, created_at, updated_at)
    select $8, $9, $10, $11, $12, $13, $14, $14 from claim where won
    returning id
), lined as (
    insert into order_lines (order_id, sku, place, quantity, unit_price_minor)
    select placed.id, l.sku, l.place - 1, l.quantity, l.unit_price_minor
    from placed, unnest($15::text[], $16::int[], $17::bigint[]) with ordinality
        as l (sku, quantity, unit_price_minor, place)
), started as materialized (
    select saga_start($18::json) from placed
), appended as materialized (
    -- Nobody else can know of the order before the commit: there is no aggregate row to lock first.
    select outbox_append($19, $20, $21, $22, $23) from placed
)
select same, (select count(*) from started) + (select count(*) from appended) = 2 as won from priced
