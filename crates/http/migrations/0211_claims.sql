-- Takes several keys at once, with the answers they will have: for statements that do the work of several requests.

-- Answers in the order of the arrays: true where the key is the request's own now; false where it is taken, where it stood
-- in the arrays before, and for the requests of the numbers in `left_out`, counted from 1. Keys are taken in the order of
-- the arrays: give them sorted, so that two calls wait for each other in one direction only. For the rest it is as with
-- idempotency_claim.
create function idempotency_claims(
    left_out int[], scopes text[], endpoints text[], keys text[], request_hashes bytea[], statuses smallint[],
    headers text[], bodies bytea[]
) returns boolean[]
language plpgsql
as $$
declare
    won boolean[] := array_fill(false, array[cardinality(keys)]);
begin
    -- One by one: a statement for all of them costs more than a few of these.
    for i in 1 .. cardinality(keys) loop
        continue when i = any (left_out);
        insert into idempotency_keys as k (scope, endpoint, key, request_hash, status, headers, body)
        values ($2[i], $3[i], $4[i], $5[i], $6[i], $7[i]::json, $8[i])
        on conflict do nothing;
        won[i] := found;
    end loop;
    return won;
end
$$;
