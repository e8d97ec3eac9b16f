-- The whole store. Words as in docs/concepts.md. Every primary key leads with the column by which its
-- table would be distributed (message by id, mailboxes by endpoint), and no constraint crosses tables.
-- Partitions are months (docs/adr/0011): each costs every statement a little, so there should be few.

-- -- directory -----------------------------------------------------------------------------------
-- Rows are never deleted: `active` ends their life, and `revision` tells every process what changed.

create sequence directory_revision;

create table endpoint (
    id         int generated always as identity primary key,
    name       text not null unique,
    active     boolean not null default true,
    created_at timestamptz not null default now(),
    revision   bigint not null
);

create table agency (
    code     text primary key,
    name     text not null,
    parent   text,
    aliases  text[] not null default '{}',
    endpoint int,
    active   boolean not null default true,
    revision bigint not null
);

create table recipient_group (
    name     text primary key,
    members  text[] not null,
    active   boolean not null default true,
    revision bigint not null
);

create table signing_key (
    kid        text primary key,
    x5t        text,
    jwk        text not null,
    endpoint   int,
    agency     text,
    not_before timestamptz,
    not_after  timestamptz,
    active     boolean not null default true,
    revision   bigint not null,
    check ((endpoint is null) <> (agency is null))
);

create table credential (
    hash       bytea primary key,           -- SHA-256 of the token, or of the client certificate's DER
    kind       text not null check (kind in ('token', 'certificate')),
    role       text not null check (role in ('endpoint', 'operator', 'auditor')),
    endpoint   int,
    label      text not null default '',
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    active     boolean not null default true,
    revision   bigint not null,
    check ((role = 'endpoint') = (endpoint is not null))
);

create index agency_revision on agency (revision);
create index endpoint_revision on endpoint (revision);
create index recipient_group_revision on recipient_group (revision);
create index signing_key_revision on signing_key (revision);
create index credential_revision on credential (revision);

-- -- messages ------------------------------------------------------------------------------------
-- Partitioned by month on the time in `id` (a UUID of version 7), so that old messages leave by DROP.

create table message (
    id          uuid not null primary key,
    accepted_at timestamptz not null,
    endpoint    int not null,               -- who submitted it; 0 is the hub itself
    sender_id   text not null,
    sender      text not null,              -- the agency in `from`
    format      smallint not null,          -- hub.relay.format.Format
    lane        smallint not null,
    digest      bytea not null,
    size        bigint not null,
    expires_at  timestamptz,
    route       text not null,              -- {"<endpoint id>": ["<agency>", …], …}
    body        bytea,                      -- the sender's bytes; null: in the blob store under `digest`
    batch       uuid not null,              -- the commit batch whose seal proves acceptance
    leaf        int not null,
    event       text not null               -- the `accepted` event, exactly as hashed
) partition by range (id);
alter table message alter column body set storage external;
create index message_expires on message (expires_at) where expires_at is not null;

-- One row a commit batch. The sequence of a message is its batch's seq_base + its leaf.
create table batch (
    id       uuid not null primary key,
    at       timestamptz not null,
    seq_base bigint not null,
    leaves   bytea not null,                -- the leaf hashes, 32 bytes each
    seal     text not null
) partition by range (id);

-- What was refused and provably so. Written in batches like everything that is sealed.
create table rejection (
    endpoint int not null,
    id       uuid not null,
    at       timestamptz not null,
    digest   bytea not null,
    code     text not null,
    batch    uuid not null,
    leaf     int not null,
    event    text not null,
    primary key (endpoint, id)
) partition by range (id);

-- The key for idempotency. Kept for good: about 160 bytes a message, and the law asks that a repeated
-- document be noticed whenever it comes.
create table submission (
    endpoint  int not null,
    sender_id text not null,
    message   uuid not null,
    digest    bytea not null,
    primary key (endpoint, sender_id)
);

-- -- mailboxes -----------------------------------------------------------------------------------
-- `inbox` is append-only and partitioned by month on `seq`, which counts microseconds since 1970.

create table inbox (
    endpoint int not null,
    lane     smallint not null,
    seq      bigint not null,
    message  uuid not null,
    primary key (endpoint, lane, seq)
) partition by range (seq);

-- Everything up to `floor` is done, and what lies in `done` beyond it. Half-filled pages and no index on
-- what changes: every update is HOT.
create table mailbox (
    endpoint int not null,
    lane     smallint not null,
    floor    bigint not null default 0,
    done     int8multirange not null default '{}',
    handed   bigint not null default 0,     -- the highest sequence handed over so far
    primary key (endpoint, lane)
) with (fillfactor = 50);

-- What ended deliveries: one row a run of consecutive inbox entries. The event of the k-th entry of a
-- run is leaf `leaf + k` of its batch; its text is derived from the message (hub/relay/events.py).
create table progress (
    endpoint  int not null,
    lane      smallint not null,
    first_seq bigint not null,
    last_seq  bigint not null,
    kind      smallint not null,
    at        timestamptz not null,
    batch     uuid not null,
    leaf      int not null,
    reason    text,
    primary key (endpoint, lane, first_seq)
) partition by range (first_seq);

-- Order of sequences is order of commits: whoever takes one holds advisory lock 7001 until it commits.
create sequence mailbox_seq;

-- -- attachments ---------------------------------------------------------------------------------

create table attachment (
    sha256      bytea primary key,
    size        bigint not null,
    endpoint    int not null,               -- who uploaded it first
    uploaded_at timestamptz not null default now()
);
-- A second endpoint that uploads the same bytes may use them too.
create table attachment_owner (
    sha256   bytea not null,
    endpoint int not null,
    primary key (sha256, endpoint)
);
create table attachment_use (
    sha256  bytea not null,
    message uuid not null,
    primary key (sha256, message)
);

-- -- the hub itself ------------------------------------------------------------------------------

create table hub_key (
    kid        text primary key,
    jwk        text not null,
    created_at timestamptz not null default now()
);

-- What each process last said of itself, and when each endpoint was last seen. Unlogged: worth nothing
-- after a crash.
create unlogged table worker (
    id    uuid primary key,
    at    timestamptz not null,
    stats text not null
) with (fillfactor = 50);
create unlogged table endpoint_seen (
    endpoint int primary key,
    at       timestamptz not null
) with (fillfactor = 50);

create table watermark (
    name text primary key,
    at   timestamptz not null
);

-- -- functions of the hot path -------------------------------------------------------------------

-- The smallest UUID of version 7 of a moment.
create function uuid_floor(moment timestamptz) returns uuid language sql immutable as $$
    select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

create function seq_floor(moment timestamptz) returns bigint language sql immutable as $$
    select (extract(epoch from moment) * 1000000)::bigint
$$;

-- Makes the partitions of last month, this one and `months` more. Idempotent; serialised by advisory lock 7002.
-- A table is made first and attached then: that asks for no lock on the parent that commits, readers or
-- pg_dump would have to wait for. The search for UTC's months must not depend on who asks.
create function ensure_partitions(months int) returns void language plpgsql
set timezone = 'UTC' set lock_timeout = '5s' as $$
declare
    this  timestamptz := date_trunc('month', now());
    first timestamptz;
    next  timestamptz;
    name  text;
    part  text;
    low   text;
    high  text;
begin
    perform pg_advisory_xact_lock(7002);
    for i in -1..months loop
        first := this + make_interval(months => i);
        next := this + make_interval(months => i + 1);
        foreach name in array array['message', 'batch', 'rejection', 'inbox', 'progress'] loop
            part := name || to_char(first, '_YYYYMM');
            if to_regclass(part) is not null then
                continue;
            end if;
            if name in ('inbox', 'progress') then
                low := seq_floor(first)::text;
                high := seq_floor(next)::text;
            else
                low := quote_literal(uuid_floor(first));
                high := quote_literal(uuid_floor(next));
            end if;
            execute format('create table %I (like %I including all)', part, name);
            if name = 'message' then
                -- Rows under 8 KB stay in their page: a 2 KiB document is read with one look.
                execute format('alter table %I set (toast_tuple_target = 8160)', part);
            end if;
            execute format('alter table %I attach partition %I for values from (%s) to (%s)',
                           name, part, low, high);
        end loop;
    end loop;
end $$;

-- Commits one batch of messages. Raises LT409 and writes nothing when any (endpoint, sender_id) exists.
-- Work that needs no order comes first; the lock that makes sequences follow commits is taken last.
create function commit_messages(
    p_batch uuid, p_at timestamptz, p_leaves bytea, p_seal text,
    p_ids uuid[], p_endpoints int[], p_sender_ids text[], p_senders text[], p_formats smallint[],
    p_lanes smallint[], p_digests bytea[], p_sizes bigint[], p_expires timestamptz[], p_routes text[],
    p_bodies bytea[], p_message_leaves int[], p_events text[],
    p_delivery_of int[], p_delivery_to int[],
    p_attachment_of int[], p_attachments bytea[],
    p_rejection_ids uuid[], p_rejection_endpoints int[], p_rejection_digests bytea[],
    p_rejection_codes text[], p_rejection_leaves int[], p_rejection_events text[]
) returns void language plpgsql as $$
declare
    claimed int;
    base    bigint := 0;
begin
    if cardinality(p_ids) > 0 then
        insert into submission
        select * from unnest(p_endpoints, p_sender_ids, p_ids, p_digests) s(endpoint, sender_id, id, digest)
        order by endpoint, sender_id        -- one order for all, or two batches could wait for each other
        on conflict do nothing;
        get diagnostics claimed = row_count;
        if claimed < cardinality(p_ids) then
            raise exception 'submitted before' using errcode = 'LT409';
        end if;
        insert into message
        select id, p_at, endpoint, sender_id, sender, format, lane, digest, size, expires, route, body,
               p_batch, leaf, event
        from unnest(p_ids, p_endpoints, p_sender_ids, p_senders, p_formats, p_lanes, p_digests, p_sizes,
                    p_expires, p_routes, p_bodies, p_message_leaves, p_events)
            m(id, endpoint, sender_id, sender, format, lane, digest, size, expires, route, body, leaf, event);
        if cardinality(p_attachments) > 0 then
            insert into attachment_use
            select sha256, p_ids[of] from unnest(p_attachment_of, p_attachments) a(of, sha256)
            on conflict do nothing;
        end if;
    end if;
    if cardinality(p_rejection_ids) > 0 then
        insert into rejection
        select endpoint, id, p_at, digest, code, p_batch, leaf, event
        from unnest(p_rejection_ids, p_rejection_endpoints, p_rejection_digests, p_rejection_codes,
                    p_rejection_leaves, p_rejection_events) r(id, endpoint, digest, code, leaf, event);
    end if;
    if cardinality(p_delivery_of) > 0 then
        perform pg_advisory_xact_lock(7001);
        select greatest(last_value + 1, seq_floor(clock_timestamp())) into base from mailbox_seq;
        perform setval('mailbox_seq', base + cardinality(p_ids));
        insert into inbox
        select d.receiver, p_lanes[d.of], base + p_message_leaves[d.of], p_ids[d.of]
        from unnest(p_delivery_of, p_delivery_to) d(of, receiver)
        order by d.receiver;                -- neighbours in the index are written together
    end if;
    insert into batch values (p_batch, p_at, base, p_leaves, p_seal);
end $$;

-- Ends deliveries: moves mailboxes on and records the runs. Raises LT412 and writes nothing when a
-- mailbox has moved since it was read, which is what p_floors and p_dones say.
create function commit_progress(
    p_batch uuid, p_at timestamptz, p_leaves bytea, p_seal text,
    p_endpoints int[], p_lanes smallint[], p_floors bigint[], p_dones text[],
    p_new_floors bigint[], p_new_dones text[],
    p_run_endpoints int[], p_run_lanes smallint[], p_firsts bigint[], p_lasts bigint[], p_kinds smallint[],
    p_run_leaves int[], p_reasons text[]
) returns void language plpgsql as $$
declare
    moved int;
begin
    perform 1 from mailbox b
    join unnest(p_endpoints, p_lanes) k(endpoint, lane) on b.endpoint = k.endpoint and b.lane = k.lane
    order by b.endpoint, b.lane for update of b;
    update mailbox b
    set floor = k.new_floor, done = k.new_done::int8multirange, handed = greatest(b.handed, k.new_floor)
    from unnest(p_endpoints, p_lanes, p_floors, p_dones, p_new_floors, p_new_dones)
        k(endpoint, lane, floor, done, new_floor, new_done)
    where b.endpoint = k.endpoint and b.lane = k.lane
      and b.floor = k.floor and b.done = k.done::int8multirange;
    get diagnostics moved = row_count;
    if moved < cardinality(p_endpoints) then
        raise exception 'the mailbox has moved' using errcode = 'LT412';
    end if;
    insert into progress
    select endpoint, lane, first_seq, last_seq, kind, p_at, p_batch, leaf, reason
    from unnest(p_run_endpoints, p_run_lanes, p_firsts, p_lasts, p_kinds, p_run_leaves, p_reasons)
        r(endpoint, lane, first_seq, last_seq, kind, leaf, reason);
    insert into batch values (p_batch, p_at, 0, p_leaves, p_seal);
end $$;

select ensure_partitions(2);
