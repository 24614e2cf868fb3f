-- The outbox's limits as domains: a table's checks are parsed anew by every statement that writes it, a domain's once by
-- each session. Of the statement that places an order, two rows, the checks of its tables were two fifths.
-- The limits and the names of the constraints stay.

create domain outbox_topic as text constraint outbox_topic_check check (length(value) between 1 and 249);
create domain outbox_key as bytea constraint outbox_key_check check (octet_length(value) <= 1024);
-- One JSON object of strings; json, not jsonb: kept byte for byte, in order.
create domain outbox_headers as json constraint outbox_headers_check
    check (json_typeof(value) = 'object' and octet_length(value::text) <= 32768);
-- Below a topic's max.message.bytes of 1,048,588 with headers and framing, so the broker can not refuse it.
create domain outbox_payload as bytea constraint outbox_payload_check check (octet_length(value) <= 917504);

-- Rewrites the rows that are kept: services are to be stopped, or to wait, meanwhile.
alter table outbox
    drop constraint outbox_topic_check,
    drop constraint outbox_key_check,
    drop constraint outbox_headers_check,
    drop constraint outbox_payload_check,
    alter column topic type outbox_topic,
    alter column key type outbox_key,
    alter column headers type outbox_headers,
    alter column payload type outbox_payload;
