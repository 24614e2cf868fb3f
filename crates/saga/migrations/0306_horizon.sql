-- Ended sagas are deleted after their time. Who finds none must be able to tell a deleted one from one that never was:
-- every saga that is gone had ended before this time, and the time only grows.

create table saga_horizon (
    -- One row.
    the_one      boolean     primary key default true check (the_one),
    ended_before timestamptz not null
);
