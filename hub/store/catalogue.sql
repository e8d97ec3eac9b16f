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
