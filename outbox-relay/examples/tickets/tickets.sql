-- The example's own table: a ticket counts its changes, each change is one event.
create table ticket (
    id      bigint generated always as identity primary key,
    title   text not null,
    state   text not null default 'open' check (state in ('open', 'closed')),
    version bigint not null default 1
);
