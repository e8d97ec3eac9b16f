-- Time-stamps of checkpoints.

-- name: due
-- The newest checkpoint, if the authority $1 has stamped none that is newer and may be asked now.
select c.size, c.note
from (select size, note from checkpoint order by size desc limit 1) c
where c.size > 0
  and not exists (select 1 from checkpoint_timestamp t where t.authority = $1 and t.size >= c.size)
  and not exists (select 1 from timestamp_turn u where u.authority = $1 and u.next_at > now())

-- name: claim
-- The right to ask the authority $1 for $2 seconds, if nobody has it: its failures in a row until now.
insert into timestamp_turn (authority, next_at) values ($1, now() + make_interval(secs => $2))
on conflict (authority) do update set next_at = excluded.next_at where timestamp_turn.next_at <= now()
returning failures

-- name: stamped
-- Keep a token; the authority may be asked again in $5 seconds.
with kept as (
    insert into checkpoint_timestamp (size, authority, token, at) values ($2, $1, $3, $4) on conflict do nothing
)
update timestamp_turn set next_at = now() + make_interval(secs => $5), failures = 0, error = null where authority = $1

-- name: failed
-- The authority may be asked again in $2 seconds.
update timestamp_turn set next_at = now() + make_interval(secs => $2), failures = failures + 1, error = $3
where authority = $1
