-- A clock that was wrong for a moment stopped the hub for as long as it had been ahead: `setval` is not undone with the
-- batch whose entries no table would take, and sequences never go back. Now it comes after them.

-- Commits one batch of messages. Raises LT409 and writes nothing when any (endpoint, sender_id) exists.
-- Work that needs no order comes first; the lock that makes sequences follow commits is taken last.
--
-- The k-th message goes to the endpoints p_set_members[p_set_starts[k] .. + p_set_sizes[k] - 1]: messages with
-- the same recipients name the same members, so that 300 of them are sent once for a batch.
--
-- Gives the batch's seq_base, then for each watched mailbox the last sequence that it held before: whoever has
-- seen that one may be handed the new ones from memory.
create or replace function commit_messages(
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
        perform setval('mailbox_seq', base + cardinality(p_ids));      -- stays, also where all else is undone
    end if;
    insert into batch values (p_batch, p_at, base, p_leaves, p_seal);
    return base || before;
end $$;
