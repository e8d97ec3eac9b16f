-- For systems that speak the national axis's interface, and for states of documents.

-- What a message is: 0 document, 1 status, 2 notice of the hub. What it does: 0 new, 1 recall, 2 update,
-- 3 replacement. And the document it is or speaks of, under the name that the parties have for it: the edXML
-- DocumentId, or a native document's id; of a notice, the hub's id of the message.
alter table message
    add kind        smallint not null default 0,
    add business    smallint not null default 0,
    add document_id text collate "C";
create index message_document on message (document_id) where document_id is not null;
update message set kind = 2 where format = 2;

-- Documents and statuses are asked for apart. Statuses have an index of their own, so that they are found behind
-- any number of documents; a document goes to hundreds of mailboxes and pays for none.
alter table inbox add kind smallint not null default 0;
create index inbox_status on inbox (endpoint, lane, seq) where kind = 1;
update inbox i set kind = 2 from message m where m.id = i.message and m.format = 2;

alter table agency add mail text not null default '';

create table axis_system (
    system_id  text primary key,
    endpoint   int not null,
    utc_hours  smallint not null default 7, -- how far its clock is ahead of UTC
    secret     bytea not null,              -- sealed (hub/directory/vault.py)
    previous   bytea,                       -- the one before, which goes on working until the next
    active     boolean not null default true,
    created_at timestamptz not null default now(),
    revision   bigint not null
);
create index axis_system_revision on axis_system (revision);
create index axis_system_endpoint on axis_system (endpoint);

-- What systems asked to be changed in the directory. `signature` is that of the signed request.
create table axis_request (
    id         bigint generated always as identity primary key,
    system_id  text not null,
    endpoint   int not null,
    kind       text not null check (kind in ('register', 'delete')),
    code       text not null,
    name       text not null,
    parent     text not null,
    mail       text not null,
    mobile     text not null,
    fax        text not null,
    signature  bytea not null unique,
    state      text not null default 'waiting' check (state in ('waiting', 'approved', 'rejected', 'superseded')),
    at         timestamptz not null default now(),
    decided_at timestamptz
);
create index axis_request_waiting on axis_request (system_id, code) where state = 'waiting';

-- That a system said it is at work on a document. Gone when its delivery has ended.
create table axis_note (
    endpoint int not null,
    message  uuid not null,
    at       timestamptz not null default now(),
    primary key (endpoint, message)
);
create index axis_note_message on axis_note (message);

drop function commit_messages(
    uuid, timestamptz, bytea, text, uuid[], int[], text[], text[], smallint[], smallint[], bytea[], bigint[],
    timestamptz[], text[], bytea[], int[], text[], int[], int[], int[], int[], bytea[], uuid[], int[], bytea[],
    text[], int[], text[], text[], text[], int[], smallint[]);

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
    p_kinds smallint[], p_businesses smallint[], p_document_ids text[]
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
