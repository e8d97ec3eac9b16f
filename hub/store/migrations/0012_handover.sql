-- Hand-over as evidence, reasons by code, and acknowledgements that recipients sign (docs/adr/0053).

alter table progress
    add column code            text,        -- why, of protocol.reasons; null: acknowledged, or sealed before codes
    add column acknowledgement uuid;        -- the signed acknowledgement that ended the run; null: none

-- What was handed over: one row a run of consecutive inbox entries, as `progress` has them for their ends.
create table handed_run (
    endpoint  int not null,
    lane      smallint not null,
    first_seq bigint not null,
    last_seq  bigint not null,
    at        timestamptz not null,         -- by when the bytes of all of them had been given
    batch     uuid not null,
    leaf      int not null,
    primary key (endpoint, lane, first_seq)
) partition by range (first_seq);

-- What recipients signed, as it came. `leaves`: the hashes of the documents that it acknowledges, 32 bytes each, in
-- its order: the tree over them has the root that was signed.
create table acknowledgement (
    id       uuid not null primary key,
    endpoint int not null,
    at       timestamptz not null,
    jws      text not null,
    leaves   bytea not null
) partition by range (id);

-- Beyond `floor`: entries of which the hand-over is sealed. Empty as long as readers acknowledge soon.
alter table mailbox add column handed_sealed int8multirange not null default '{}';

alter table endpoint
    add column signed_acknowledgements text not null default 'accept'
        check (signed_acknowledgements in ('accept', 'require'));

create or replace function monthly_tables() returns text[] language sql immutable as $$
    select array['inbox', 'progress', 'handed_run', 'acknowledgement', 'event', 'message', 'rejection', 'batch']
$$;
select ensure_partitions(2);

-- What waits in older months will be handed over, too.
do $$
declare
    month text;
    part  text;
begin
    for month, part in
        select right(c.relname, 6), pg_get_expr(c.relpartbound, c.oid)
        from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'inbox'::regclass
    loop
        if to_regclass('handed_run_' || month) is null then
            execute format('create table %I partition of handed_run %s', 'handed_run_' || month, part);
        end if;
    end loop;
end $$;

drop function commit_progress(
    uuid, timestamptz, bytea, text, int[], smallint[], bigint[], text[], bigint[], text[],
    int[], smallint[], bigint[], bigint[], smallint[], int[], text[]);

-- Ends deliveries: moves mailboxes on and records the runs, those of hand-overs that are sealed along with the ends
-- among them. Raises LT412 and writes nothing when a mailbox has moved since it was read, which is what p_floors,
-- p_dones and p_sealeds say.
create function commit_progress(
    p_batch uuid, p_at timestamptz, p_leaves bytea, p_seal text,
    p_endpoints int[], p_lanes smallint[], p_floors bigint[], p_dones text[], p_sealeds text[],
    p_new_floors bigint[], p_new_dones text[], p_new_sealeds text[],
    p_run_endpoints int[], p_run_lanes smallint[], p_firsts bigint[], p_lasts bigint[], p_kinds smallint[],
    p_run_leaves int[], p_codes text[], p_reasons text[], p_run_acknowledgements uuid[],
    p_handed_endpoints int[], p_handed_lanes smallint[], p_handed_firsts bigint[], p_handed_lasts bigint[],
    p_handed_ats timestamptz[], p_handed_leaves int[],
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
    insert into progress (endpoint, lane, first_seq, last_seq, kind, at, batch, leaf, code, reason, acknowledgement)
    select endpoint, lane, first_seq, last_seq, kind, p_at, p_batch, leaf, code, reason, acknowledgement
    from unnest(p_run_endpoints, p_run_lanes, p_firsts, p_lasts, p_kinds, p_run_leaves, p_codes, p_reasons,
                p_run_acknowledgements)
        r(endpoint, lane, first_seq, last_seq, kind, leaf, code, reason, acknowledgement);
    if cardinality(p_handed_endpoints) > 0 then
        insert into handed_run (endpoint, lane, first_seq, last_seq, at, batch, leaf)
        select endpoint, lane, first_seq, last_seq, at, p_batch, leaf
        from unnest(p_handed_endpoints, p_handed_lanes, p_handed_firsts, p_handed_lasts, p_handed_ats,
                    p_handed_leaves) h(endpoint, lane, first_seq, last_seq, at, leaf)
        on conflict do nothing;             -- whatever it is, it must not hold up an acknowledgement
    end if;
    if cardinality(p_acknowledgements) > 0 then
        insert into acknowledgement (id, endpoint, at, jws, leaves)
        select id, endpoint, p_at, jws, leaves
        from unnest(p_acknowledgements, p_signers, p_jws, p_documents) a(id, endpoint, jws, leaves);
    end if;
    insert into batch values (p_batch, p_at, 0, p_leaves, p_seal);
end $$;

-- Seals hand-overs that nobody acknowledged so far. The caller holds the mailboxes (`for update`).
create function commit_handed(
    p_batch uuid, p_at timestamptz, p_leaves bytea, p_seal text,
    p_endpoints int[], p_lanes smallint[], p_new_sealeds text[],
    p_handed_endpoints int[], p_handed_lanes smallint[], p_firsts bigint[], p_lasts bigint[],
    p_ats timestamptz[], p_run_leaves int[]
) returns void language plpgsql as $$
begin
    update mailbox b set handed_sealed = k.new_sealed::int8multirange
    from unnest(p_endpoints, p_lanes, p_new_sealeds) k(endpoint, lane, new_sealed)
    where b.endpoint = k.endpoint and b.lane = k.lane;
    insert into handed_run (endpoint, lane, first_seq, last_seq, at, batch, leaf)
    select endpoint, lane, first_seq, last_seq, at, p_batch, leaf
    from unnest(p_handed_endpoints, p_handed_lanes, p_firsts, p_lasts, p_ats, p_run_leaves)
        h(endpoint, lane, first_seq, last_seq, at, leaf)
    on conflict do nothing;
    insert into batch values (p_batch, p_at, 0, p_leaves, p_seal);
end $$;
