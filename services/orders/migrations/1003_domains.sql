-- What orders and lines may hold, as domains: a table's checks are parsed anew by every statement that writes it, a
-- domain's once by each session. The rules and the names of the constraints stay; the one over two columns stays a check.

create domain order_status as text constraint orders_status_check
    check (value in ('PENDING', 'CONFIRMED', 'REJECTED', 'CANCELLING', 'CANCELLED'));
create domain order_reason as text constraint orders_reason_check check (length(value) between 1 and 64);
create domain order_currency as text constraint orders_currency_check check (value ~ '^[A-Z]{3}$');
create domain order_total_minor as bigint constraint orders_total_minor_check check (value > 0);
create domain order_version as bigint constraint orders_version_check check (value >= 1);

-- The check over two columns names one of them with its old type: it goes and comes back.
alter table orders
    drop constraint orders_status_check,
    drop constraint orders_reason_check,
    drop constraint orders_currency_check,
    drop constraint orders_total_minor_check,
    drop constraint orders_version_check,
    drop constraint orders_check,
    alter column status type order_status,
    alter column reason type order_reason,
    alter column currency type order_currency,
    alter column total_minor type order_total_minor,
    alter column version type order_version;
alter table orders add constraint orders_check check ((reason is null) = (status in ('PENDING', 'CONFIRMED')));

create domain order_line_sku as text constraint order_lines_sku_check check (length(value) between 1 and 64);
create domain order_line_place as int constraint order_lines_place_check check (value between 0 and 99);
create domain order_line_quantity as int constraint order_lines_quantity_check check (value between 1 and 10000);
create domain order_line_price_minor as bigint constraint order_lines_unit_price_minor_check check (value >= 0);

alter table order_lines
    drop constraint order_lines_sku_check,
    drop constraint order_lines_place_check,
    drop constraint order_lines_quantity_check,
    drop constraint order_lines_unit_price_minor_check,
    alter column sku type order_line_sku,
    alter column place type order_line_place,
    alter column quantity type order_line_quantity,
    alter column unit_price_minor type order_line_price_minor;
