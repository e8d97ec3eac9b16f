-- Who has which attachment. The bytes are in the blob store.

-- name: may_read
select exists (select 1 from attachment_owner where sha256 = $1 and endpoint = $2)
    or exists (select 1 from attachment_use u join message m on m.id = u.message
               where u.sha256 = $1 and (m.route::jsonb) ? ($2::int)::text)

-- name: add
-- True when the endpoint did not have it before.
with content as (insert into attachment (sha256, size, endpoint) values ($1, $2, $3) on conflict do nothing),
owner as (insert into attachment_owner values ($1, $3) on conflict do nothing returning 1)
select exists (select 1 from owner)
