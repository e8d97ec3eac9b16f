-- Documents by the names that their parties have for them, and what messages say of them.

-- name: documents_named
-- Documents under the names $1, each the $2-th endpoint's own where they are native; `place` counts names from 1.
-- The first transfers of each name.
select k.place, d.id, d.sender, d.endpoint, d.route, d.lane, d.seq, d.business
from unnest($1::text[], $2::int[]) with ordinality k(name, endpoint, place)
cross join lateral (
    (select m.id, m.sender, m.endpoint, m.route, m.lane, b.seq_base + m.leaf as seq, m.business
     from message m join batch b on b.id = m.batch
     where m.document_id = k.name and m.kind = 0 order by m.id limit 50)
    union all
    select m.id, m.sender, m.endpoint, m.route, m.lane, b.seq_base + m.leaf, m.business
    from submission s join message m on m.id = s.message join batch b on b.id = m.batch
    where s.endpoint = k.endpoint and s.sender_id = k.name and m.kind = 0
) d

-- name: spoken_of
-- What messages say of the documents ($1, $2) (name, owner), in the order in which they came.
select r.document_id, r.owner, r.relation, r.state, r.said_at, m.id, m.sender, m.sender_id, m.document_id as name,
       m.endpoint, m.format, m.kind, m.business, m.route, m.accepted_at
from unnest($1::text[], $2::text[]) k(name, owner)
join reference r on r.document_id = k.name and r.owner in (k.owner, '')
join message m on m.id = r.message
order by m.id limit $3

-- name: speaks_of
-- What messages say of other documents.
select message, document_id, owner, relation, state, said_at from reference where message = any($1::uuid[])
order by message, relation, document_id, owner

-- name: briefs
select id, sender, sender_id, document_id, endpoint, format, kind, business, route, accepted_at, size, digest, body,
       array(select endpoint from recalled where message = id) as recalled
from message where id = any($1::uuid[]) order by id
