-- A record of up to 1 MiB, which is what a topic of Kafka's default size holds whoever wrote it, travels whole to a retry
-- or dead letter topic, and is replayed. Those topics take it (schemas/topics.toml), others do not: for them the limit stays.

-- Every value there is fulfils the narrower one: nothing is to be looked at again, no table to be locked.
alter domain outbox_payload drop constraint outbox_payload_check;
alter domain outbox_payload add constraint outbox_payload_check check (octet_length(value) <= 1048576) not valid;

alter table dead_letter_patches drop constraint dead_letter_patches_payload_check;
alter table dead_letter_patches
    add constraint dead_letter_patches_payload_check check (octet_length(payload) <= 1048576) not valid;

-- Below a topic's max.message.bytes of 1,048,588 with headers and framing, so the broker can not refuse it.
create domain outbox_message_payload as bytea
    constraint outbox_payload_check check (octet_length(value) <= 917504);

-- As in 0101, but for the payload: what is larger than a message may be goes to retry and dead letter topics alone.
create or replace function outbox_append(
    message_ids uuid[], topics text[], keys bytea[], headers text[], payloads bytea[])
returns void language sql as $$
    insert into outbox (message_id, topic, key, headers, payload)
    select m.message_id, m.topic, m.key, m.headers::json,
           case when octet_length(m.payload) > 917504 and m.topic !~ '\.(dlq|retry\.[0-9]+)$'
                then m.payload::outbox_message_payload else m.payload end
    from unnest(message_ids, topics, keys, headers, payloads) with ordinality
        as m (message_id, topic, key, headers, payload, place)
    order by m.place
$$;
