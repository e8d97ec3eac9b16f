-- What administrators see.

-- name: put_worker
insert into worker values ($1, now(), $2) on conflict (id) do update set at = now(), stats = excluded.stats

-- name: workers
select id, at, stats from worker where at > now() - interval '15 seconds' order by at

-- name: put_seen
insert into endpoint_seen select * from unnest($1::int[], $2::timestamptz[])
on conflict (endpoint) do update set at = greatest(endpoint_seen.at, excluded.at)

-- name: lanes
-- Counts deliveries that have not ended.
select b.endpoint, b.lane, w.waiting, extract(epoch from now()) - w.oldest / 1e6 as oldest_seconds
from mailbox b
cross join lateral (
    select count(*) as waiting, min(seq) as oldest from inbox
    where endpoint = b.endpoint and lane = b.lane and seq > b.floor and not b.done @> seq
) w
where w.waiting > 0

-- name: seen
select endpoint, at from endpoint_seen
