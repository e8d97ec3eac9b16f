-- The event that ends a delivery says itself since when the recipient had the message, where it was not sealed before
-- (docs/adr/0058).

alter table progress add column handed_at timestamptz;      -- by when all of the run had been given; null: see handed_run

drop function commit_progress(
    uuid, timestamptz, bytea, text, int[], smallint[], bigint[], text[], text[], bigint[], text[], text[],
    int[], smallint[], bigint[], bigint[], smallint[], int[], text[], text[], uuid[],
    int[], smallint[], bigint[], bigint[], timestamptz[], int[], uuid[], int[], text[], bytea[]);

-- Ends deliveries: moves mailboxes on and records the runs. Raises LT412 and writes nothing when a mailbox has moved
-- since it was read, which is what p_floors, p_dones and p_sealeds say.
create function commit_progress(
    p_batch uuid, p_at timestamptz, p_leaves bytea, p_seal text,
    p_endpoints int[], p_lanes smallint[], p_floors bigint[], p_dones text[], p_sealeds text[],
    p_new_floors bigint[], p_new_dones text[], p_new_sealeds text[],
    p_run_endpoints int[], p_run_lanes smallint[], p_firsts bigint[], p_lasts bigint[], p_kinds smallint[],
    p_run_leaves int[], p_codes text[], p_reasons text[], p_run_acknowledgements uuid[], p_handed_ats timestamptz[],
    p_acknowledgements uuid[], p_signers int[], p_jws text[], p_documents bytea[]
) returns void language plpgsql as $$
declare
    moved int;
begin
    perform 1 from mailbox b
    join unnest(p_endpoints, p_lanes) k(endpoint, lane) on b.endpoint = k.endpoint and b.lane = k.lane
    order by b.endpoint, b.lane for update of b;
    update mailbox b
    set floor = k.new_floor, done = k.new_done::int8multirange, handed = greatest(b.handed, k.new_floor),
        handed_sealed = k.new_sealed::int8multirange
    from unnest(p_endpoints, p_lanes, p_floors, p_dones, p_sealeds, p_new_floors, p_new_dones, p_new_sealeds)
        k(endpoint, lane, floor, done, sealed, new_floor, new_done, new_sealed)
    where b.endpoint = k.endpoint and b.lane = k.lane
      and b.floor = k.floor and b.done = k.done::int8multirange and b.handed_sealed = k.sealed::int8multirange;
    get diagnostics moved = row_count;
    if moved < cardinality(p_endpoints) then
        raise exception 'the mailbox has moved' using errcode = 'LT412';
    end if;
    insert into progress (endpoint, lane, first_seq, last_seq, kind, at, batch, leaf, code, reason, acknowledgement,
                          handed_at)
    select endpoint, lane, first_seq, last_seq, kind, p_at, p_batch, leaf, code, reason, acknowledgement, handed_at
    from unnest(p_run_endpoints, p_run_lanes, p_firsts, p_lasts, p_kinds, p_run_leaves, p_codes, p_reasons,
                p_run_acknowledgements, p_handed_ats)
        r(endpoint, lane, first_seq, last_seq, kind, leaf, code, reason, acknowledgement, handed_at);
    if cardinality(p_acknowledgements) > 0 then
        insert into acknowledgement (id, endpoint, at, jws, leaves)
        select id, endpoint, p_at, jws, leaves
        from unnest(p_acknowledgements, p_signers, p_jws, p_documents) a(id, endpoint, jws, leaves);
    end if;
    insert into batch values (p_batch, p_at, 0, p_leaves, p_seal);
end $$;
