-- The instances' limits as domains: a table's checks are parsed anew by every statement that writes it, a domain's once
-- by each session. The limits and the names of the constraints stay.

create domain saga_status as text constraint saga_instances_status_check
    check (value in ('running', 'compensating', 'completed', 'compensated', 'stuck', 'abandoned'));
create domain saga_data as json constraint saga_instances_data_check check (octet_length(value::text) <= 65536);

alter table saga_instances
    drop constraint saga_instances_status_check,
    drop constraint saga_instances_data_check,
    alter column status type saga_status,
    alter column data type saga_data;
