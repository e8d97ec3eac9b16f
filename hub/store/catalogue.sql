-- By what documents are known again.

-- name: last
select id from watermark where name = 'catalogue'

-- name: next_messages
-- The next $3 messages after $1 whose ids are older than $2.
select id, sender, sender_id, document_id, format, kind, business, accepted_at, digest, body
from message where id > $1 and id < uuid_floor(now() - $2::interval) order by id limit $3

-- name: add
-- The entries ($1, $2), and how far it has come ($3).
with entries as (
    insert into catalogue select * from unnest($1::bigint[], $2::uuid[]) e(key, message) on conflict do nothing
)
insert into watermark (name, at, id) values ('catalogue', now(), $3)
on conflict (name) do update set at = excluded.at, id = excluded.id

-- name: earlier
-- Messages with the key $1 that came before the message $2; of each pair the first $3.
select k.later, m.id, m.endpoint, m.route
from unnest($1::bigint[], $2::uuid[]) k(key, later)
cross join lateral (
    select message from catalogue where key = k.key and message < k.later order by message limit $3
) c
join message m on m.id = c.message
order by k.later, m.id

-- name: known
-- Which of these keys an earlier document has.
select distinct key from catalogue where key = any($1::bigint[])

-- name: mark
-- The messages $1 repeat something: the documents $3 with the keys $2, which may not be written down yet, among others.
with marked as (
    insert into repeated select distinct m from unnest($1::uuid[]) m on conflict do nothing
)
insert into catalogue select * from unnest($2::bigint[], $3::uuid[]) e(key, message) on conflict do nothing

-- name: mark_known
-- Of messages ($2) with keys ($1) mark those that repeat something.
insert into repeated
select distinct k.message from unnest($1::bigint[], $2::uuid[]) k(key, message)
where exists (select 1 from catalogue c where c.key = k.key and c.message < k.message)
on conflict do nothing

-- name: stored
select id, sender, sender_id, document_id, format, kind, business, accepted_at, digest, body
from message where id = any($1::uuid[])
