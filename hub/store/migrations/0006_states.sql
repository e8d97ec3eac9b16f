-- What messages say of other documents; and hand-over, noted exactly enough to recall what was not handed over.

-- That a message speaks of a document: a status of the one it reports on, an answer of what it answers, a recall,
-- update or replacement of what it is about. An ordinary document has no row here. Found by the name that the
-- parties have for the document and the agency whose it is ('' where that was not said).
create table reference (
    document_id text collate "C" not null,
    owner       text not null,
    message     uuid not null,              -- the one that speaks
    relation    smallint not null,          -- hub.relay.references.Relation
    state       text not null,              -- of a status its code, else ''
    said_at     timestamptz,                -- when, by the clock of who says it
    primary key (document_id, owner, message, relation)
);
create index reference_message on reference (message);

-- A native document is found by its sender's id, in `submission`: `document_id` is of edXML messages and notices.
update message set document_id = null where format in (0, 3);

-- -- who reads ------------------------------------------------------------------------------------
-- Before a process takes anything out of a mailbox it says so here, once for as long as it goes on reading, and
-- when it stops it says how far it got (`mailbox.given`). What lies beyond `given` in a mailbox that nobody has
-- open was handed to nobody, and can be recalled (docs/adr/0030).

create table reader (
    id uuid primary key,                    -- of a process, or of one of its lives
    at timestamptz not null default now()
) with (fillfactor = 50);
create table open_mailbox (
    endpoint int not null,
    reader   uuid not null,
    primary key (endpoint, reader)
);
create index open_mailbox_reader on open_mailbox (reader);
alter table mailbox add given bigint not null default 0;

-- What was recalled before it was handed over: never to be handed over at that endpoint.
create table recalled (
    message  uuid not null,
    endpoint int not null,
    primary key (message, endpoint)
);

-- Says that a process reads these mailboxes. False when the process has been given up meanwhile (`give_up_readers`).
-- Advisory locks (7020, endpoint) make this and a recall follow each other.
create function open_mailboxes(p_reader uuid, p_endpoints int[]) returns boolean language plpgsql as $$
begin
    perform 1 from reader where id = p_reader for key share;
    if not found then
        return false;
    end if;
    perform pg_advisory_xact_lock_shared(7020, e) from (select unnest(p_endpoints) e order by 1) k;
    insert into open_mailbox select e, p_reader from unnest(p_endpoints) e on conflict do nothing;
    return true;
end $$;

-- Takes that back, and says how far the process got.
create function close_mailboxes(
    p_reader uuid, p_endpoints int[], p_given_endpoints int[], p_lanes smallint[], p_given bigint[]
) returns void language plpgsql as $$
begin
    update mailbox b set given = k.given
    from unnest(p_given_endpoints, p_lanes, p_given) k(endpoint, lane, given)
    where b.endpoint = k.endpoint and b.lane = k.lane and b.given < k.given;
    delete from open_mailbox where reader = p_reader and endpoint = any(p_endpoints);
end $$;

-- Gives up processes that have not been heard of: whatever lies in the mailboxes that they had open counts as given.
create function give_up_readers(p_silent interval) returns int language plpgsql as $$
declare
    gone  uuid;
    count int := 0;
begin
    for gone in select id from reader where at < now() - p_silent order by id for update skip locked loop
        update mailbox b
        set given = greatest(b.given, coalesce((select seq from inbox i
                                                where i.endpoint = b.endpoint and i.lane = b.lane
                                                order by seq desc limit 1), 0))
        where b.endpoint in (select endpoint from open_mailbox where reader = gone);
        delete from open_mailbox where reader = gone;
        delete from reader where id = gone;
        count := count + 1;
    end loop;
    return count;
end $$;

-- -- duplicates -----------------------------------------------------------------------------------
-- By what a new document is known again: the hash of its sender and name, and that of its issuing body, number and
-- symbol, and year. Filled a minute later and at leisure (hub/catalogue.py), not by the commit (docs/adr/0032).

create table catalogue (
    key     bigint not null,
    message uuid not null,
    primary key (key, message)
);
alter table watermark add id uuid;

-- Commits one batch of messages. Raises LT409 and writes nothing when any (endpoint, sender_id) exists.
-- Work that needs no order comes first; the lock that makes sequences follow commits is taken last.
--
-- The k-th message goes to the endpoints p_set_members[p_set_starts[k] .. + p_set_sizes[k] - 1]: messages with
-- the same recipients name the same members, so that 300 of them are sent once for a batch.
--
-- Gives the batch's seq_base, then for each watched mailbox the last sequence that it held before: whoever has
-- seen that one may be handed the new ones from memory.
create function commit_messages(
    p_batch uuid, p_at timestamptz, p_leaves bytea, p_seal text,
    p_ids uuid[], p_endpoints int[], p_sender_ids text[], p_senders text[], p_formats smallint[],
    p_lanes smallint[], p_digests bytea[], p_sizes bigint[], p_expires timestamptz[], p_routes text[],
    p_bodies bytea[], p_message_leaves int[], p_events text[],
    p_set_starts int[], p_set_sizes int[], p_set_members int[],
    p_attachment_of int[], p_attachments bytea[],
    p_rejection_ids uuid[], p_rejection_endpoints int[], p_rejection_digests bytea[],
    p_rejection_codes text[], p_rejection_leaves int[], p_rejection_events text[],
    p_shared_ids text[], p_shared_routes text[],
    p_watched_endpoints int[], p_watched_lanes smallint[],
    p_kinds smallint[], p_businesses smallint[], p_document_ids text[],
    p_reference_of int[], p_references text[], p_owners text[], p_relations smallint[], p_states text[],
    p_said_ats timestamptz[]
) returns bigint[] language plpgsql as $$
declare
    claimed int;
    base    bigint := 0;
    before  bigint[] := '{}';
begin
    if cardinality(p_shared_ids) > 0 then
        insert into shared_route
        select * from unnest(p_shared_ids, p_shared_routes) s(id, route) order by id
        on conflict do nothing;
    end if;
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
               p_batch, leaf, event, kind, business, nullif(document_id, '')
        from unnest(p_ids, p_endpoints, p_sender_ids, p_senders, p_formats, p_lanes, p_digests, p_sizes,
                    p_expires, p_routes, p_bodies, p_message_leaves, p_events, p_kinds, p_businesses,
                    p_document_ids)
            m(id, endpoint, sender_id, sender, format, lane, digest, size, expires, route, body, leaf, event,
              kind, business, document_id);
        if cardinality(p_attachments) > 0 then
            insert into attachment_use
            select sha256, p_ids[of] from unnest(p_attachment_of, p_attachments) a(of, sha256)
            on conflict do nothing;
        end if;
        if cardinality(p_references) > 0 then
            insert into reference
            select name, owner, p_ids[of], relation, state, said_at
            from unnest(p_reference_of, p_references, p_owners, p_relations, p_states, p_said_ats)
                r(of, name, owner, relation, state, said_at)
            on conflict do nothing;
        end if;
    end if;
    if cardinality(p_rejection_ids) > 0 then
        insert into rejection
        select endpoint, id, p_at, digest, code, p_batch, leaf, event
        from unnest(p_rejection_ids, p_rejection_endpoints, p_rejection_digests, p_rejection_codes,
                    p_rejection_leaves, p_rejection_events) r(id, endpoint, digest, code, leaf, event);
    end if;
    if cardinality(p_set_members) > 0 then
        perform pg_advisory_xact_lock(7001);
        select greatest(last_value + 1, seq_floor(clock_timestamp())) into base from mailbox_seq;
        perform setval('mailbox_seq', base + cardinality(p_ids));
        if cardinality(p_watched_endpoints) > 0 then
            select array_agg(coalesce((select i.seq from inbox i where i.endpoint = w.endpoint and i.lane = w.lane
                                       order by i.seq desc limit 1), 0) order by w.place)
            into before
            from unnest(p_watched_endpoints, p_watched_lanes) with ordinality w(endpoint, lane, place);
        end if;
        insert into inbox
        select receiver, m.lane, base + m.leaf, m.id, m.kind
        from unnest(p_ids, p_lanes, p_message_leaves, p_set_starts, p_set_sizes, p_kinds)
            m(id, lane, leaf, start, size, kind)
        cross join lateral unnest(p_set_members[m.start : m.start + m.size - 1]) receiver
        order by receiver;                  -- neighbours in the index are written together
    end if;
    insert into batch values (p_batch, p_at, base, p_leaves, p_seal);
    return base || before;
end $$;
