-- A replay may send other headers: one object, a text for a header that is set, null for one that is taken away. The original
-- is never changed. Without a payload of its own a patch sends the original's.
alter table dead_letter_patches
    alter column payload drop not null,
    add column headers json check (json_typeof(headers) = 'object'),
    add constraint dead_letter_patches_check check (payload is not null or headers is not null);
