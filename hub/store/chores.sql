-- Work that needs one owner.

-- name: ensure_partitions
select ensure_partitions($1)

-- name: forget_workers
delete from worker where at < now() - interval '1 hour'

-- name: watermark
select at from watermark where name = $1

-- name: set_watermark
insert into watermark values ($1, $2) on conflict (name) do update set at = excluded.at

-- name: expiring
-- After (time, id), because any number of messages may expire at the same moment.
select id, expires_at from message
where expires_at >= $1 and (expires_at, id) > ($1, $2) and expires_at <= $3 order by expires_at, id limit $4
