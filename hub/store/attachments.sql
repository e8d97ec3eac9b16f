-- Who has which attachment. The bytes are in the blob store.

-- name: may_read
select exists (select 1 from attachment_owner where sha256 = $1 and endpoint = $2)
    or exists (select 1 from attachment_use u join message m on m.id = u.message
               left join shared_route s on m.route = '@' || s.id
               where u.sha256 = $1 and coalesce(s.route, m.route)::jsonb ? ($2::int)::text
                 and not exists (select 1 from recalled r where r.message = m.id and r.endpoint = $2))

-- name: owns
select exists (select 1 from attachment_owner where sha256 = $1 and endpoint = $2)

-- name: add
-- True when the endpoint did not have it before. One that is there is young again, also to whoever deletes old ones
-- at this moment (`condemn_attachments`) and does not see its new owner.
with content as (
    insert into attachment (sha256, size, endpoint) values ($1, $2, $3)
    on conflict (sha256) do update set uploaded_at = excluded.uploaded_at
),
owner as (insert into attachment_owner values ($1, $3) on conflict do nothing returning 1)
select exists (select 1 from owner)

-- name: adopt
-- Files $1 of $2 bytes, sent by endpoint $3 inside message $4, become attachments that its recipients may read.
with content as (
    insert into attachment (sha256, size, endpoint)
    select distinct s.sha256, s.size, $3::int from unnest($1::bytea[], $2::bigint[]) s(sha256, size)
    on conflict do nothing
)
insert into attachment_use (sha256, message) select distinct s, $4::uuid from unnest($1::bytea[]) s on conflict do nothing
