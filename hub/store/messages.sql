-- Reading one message and its history.

-- name: message
select m.id, m.accepted_at, m.endpoint, m.sender_id, m.sender, m.format, m.lane, m.digest, m.size, m.expires_at,
       m.route, m.body, m.batch, m.leaf, m.event, m.kind, m.business, m.document_id,
       (select seq_base from batch b where b.id = m.batch) + m.leaf as seq,
       array(select endpoint from recalled where message = m.id) as recalled
from message m where m.id = $1

-- name: message_of_sender
select m.id, m.accepted_at, m.endpoint, m.sender_id, m.sender, m.format, m.lane, m.digest, m.size, m.expires_at,
       m.route, m.body, m.batch, m.leaf, m.event, m.kind, m.business, m.document_id,
       (select seq_base from batch b where b.id = m.batch) + m.leaf as seq,
       array(select endpoint from recalled where message = m.id) as recalled
from submission s join message m on m.id = s.message
where s.endpoint = $1 and s.sender_id = $2

-- name: batch
select at, seq_base, leaves, seal from batch where id = $1

-- name: mailbox_positions
select endpoint, floor, done @> $2::bigint as done, greatest(handed, given) as handed from mailbox
where endpoint = any($1::int[]) and lane = $3

-- name: progress
-- The run that ended each endpoint's delivery of the message at sequence $2, and its place in that run.
select k.endpoint, p.kind, p.at, p.batch, p.code, p.reason, p.acknowledgement, p.handed_at,
       p.leaf + (select count(*)::int from inbox i where i.endpoint = k.endpoint and i.lane = $3
                 and i.seq >= p.first_seq and i.seq < $2) as leaf
from unnest($1::int[]) k(endpoint)
cross join lateral (
    select * from progress where endpoint = k.endpoint and lane = $3 and first_seq <= $2
    order by first_seq desc limit 1
) p
where p.last_seq >= $2

-- name: handed_runs
-- The same of the runs of hand-overs that were sealed by themselves.
select k.endpoint, h.at, h.batch,
       h.leaf + (select count(*)::int from inbox i where i.endpoint = k.endpoint and i.lane = $3
                 and i.seq >= h.first_seq and i.seq < $2) as leaf
from unnest($1::int[]) k(endpoint)
cross join lateral (
    select * from handed_run where endpoint = k.endpoint and lane = $3 and first_seq <= $2
    order by first_seq desc limit 1
) h
where h.last_seq >= $2

-- name: acknowledgements
select id, jws, leaves from acknowledgement where id = any($1::uuid[])

-- name: recorded
-- Events of a message beside its acceptance and those of its deliveries.
select at, kind, endpoint, batch, leaf, event from event where message = $1 order by at, batch, leaf

-- name: batches
select id, leaves, seal from batch where id = any($1::uuid[])

-- name: package_signatures
select place, status, reason, subject, fingerprint, whole, weak from package_signature where message = $1 order by place

-- name: shared_routes
select id, route from shared_route where id = any($1::text[])
