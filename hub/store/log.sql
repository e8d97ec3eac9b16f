-- The transparency log.

-- name: try_lock
select pg_try_advisory_xact_lock(7020)

-- name: lock
-- Waits for the turn that an integrator may be at.
select pg_advisory_xact_lock(7020)

-- name: newest
select c.size, c.at, c.root, c.note, extract(epoch from now() - c.at)::float8 as age,
       (select string_agg(s.line, '' order by s.at, s.name) from checkpoint_signature s where s.size = c.size) as lines
from checkpoint c order by c.size desc limit 1

-- name: edge
-- The rows at the right edge of a tree of $1 entries: each level's last row, where it is not full.
select level, place, hashes from log_tile
where (level, place) in (
    select level, $1::bigint >> 8 * (greatest(level, 0) + 1)
    from generate_series(-1, 7) level
    where ($1::bigint >> 8 * greatest(level, 0)) & 255 > 0
)
order by level

-- name: pending
-- Up to $1 batches that wait for their place, oldest first.
select p.batch, b.leaves from log_pending p join batch b on b.id = p.batch order by p.batch limit $1

-- name: gone
-- How many that wait are not there any more.
select count(*) from log_pending p where not exists (select 1 from batch b where b.id = p.batch)

-- name: append
-- All that a turn of the integrator changes, at once.
with placed as (
    insert into log_batch (batch, first) select * from unnest($1::uuid[], $2::bigint[])
), taken as (
    delete from log_pending where batch = any($1::uuid[])
), written as (
    insert into log_tile (level, place, hashes) select * from unnest($3::smallint[], $4::bigint[], $5::bytea[])
    on conflict (level, place) do update set hashes = excluded.hashes
)
insert into checkpoint (size, at, root, note) values ($6, now(), $7, $8)
on conflict (size) do update set note = excluded.note  -- the same text, signed with another key

-- name: tiles
-- Rows of the tree, as far as they are there.
select level, place, hashes from log_tile
where (level, place) in (select * from unnest($1::smallint[], $2::bigint[]))

-- name: checkpoints
-- Checkpoints of at least $1 entries, newest first, with how many witnesses signed along.
select c.size, c.at, c.root, c.note,
       (select count(*) from checkpoint_signature s where s.size = c.size) as signatures,
       (select string_agg(s.line, '' order by s.at, s.name) from checkpoint_signature s where s.size = c.size) as lines,
       exists (select 1 from checkpoint_timestamp t where t.size = c.size) as stamped
from checkpoint c where c.size >= $1 order by c.size desc limit $2

-- name: place
select p.first, coalesce((select min(n.first) from log_batch n where n.first > p.first),
                        (select max(size) from checkpoint)) as next
from log_batch p where p.batch = $1

-- name: reach
-- How far the log is, how many batches wait, and for how long the oldest has (by the time in its id).
select c.size, c.at, w.waiting, w.seconds
from (
    select count(*) as waiting,
           extract(epoch from now() - to_timestamp(
               ('x' || left(replace(min(batch::text), '-', ''), 12))::bit(48)::bigint / 1000.0))::float8 as seconds
    from log_pending
) w
left join (select size, at from checkpoint order by size desc limit 1) c on true

-- name: batch_at
-- The batch that holds the entry $1.
select batch, first from log_batch where first <= $1 order by first desc limit 1

-- name: prune
-- Of checkpoints of more than a day ago that have no time-stamp, all but the last of each hour, and of those that
-- witnesses signed the last of each minute. A proof that was given out holds its checkpoint.
with old as (
    select c.size, c.at, exists (select 1 from checkpoint_signature s where s.size = c.size) as cosigned
    from checkpoint c
    where c.at < now() - interval '1 day'
      and not exists (select 1 from checkpoint_timestamp t where t.size = c.size)
), kept as (
    select max(size) as size from old group by date_trunc('hour', at)
    union select max(size) from old where cosigned group by date_trunc('minute', at)
), gone as (
    delete from checkpoint c using old where c.size = old.size and c.size not in (select size from kept)
    returning c.size
)
delete from checkpoint_signature s using gone where s.size = gone.size

-- name: lock_identity
-- A statement of its own, before `first_identity`: one that waited for the lock itself would still see the table as it
-- was before it waited, and find no name in it.
select pg_advisory_xact_lock(7021)

-- name: first_identity
-- The log's name and key, unless it has some.
insert into log_identity (vkey, origin) select $1, $2 where not exists (select 1 from log_identity)

-- name: take_key
-- From now on the log is signed with another key; also by a clock that went back since the last one was taken.
insert into log_identity (vkey, origin, since)
select $1, $2, greatest(clock_timestamp(), max(since) + interval '1 microsecond') from log_identity
on conflict (vkey) do update set since = excluded.since

-- name: identities
select vkey, origin, since from log_identity order by since desc

-- name: signer
-- The key that the log is signed with from now on.
select vkey from log_identity order by since desc limit 1

-- name: kept_since
-- The first month that is wholly there, as YYYYMM: batches, and what events are found in. A month leaves table by table.
select max(first)
from (
    select min(right(c.relname, 6)) as first
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent in ('batch'::regclass, 'message'::regclass, 'rejection'::regclass) and not i.inhdetachpending
    group by i.inhparent
) months

-- name: entry_event
-- The event at leaf $2 of a batch of submissions, by the time around which its message or rejection got its id.
select event from message
where id between uuid_floor($3) and uuid_floor($4) and batch = $1 and leaf = $2
union all
select event from rejection
where id between uuid_floor($3) and uuid_floor($4) and batch = $1 and leaf = $2
limit 1

-- name: begin_anew
-- Another log in the place of this one: an empty tree under a new name, into which every batch that is still there
-- goes again.
with tiles as (delete from log_tile), places as (delete from log_batch), lines as (delete from checkpoint_signature),
stamps as (delete from checkpoint_timestamp), checkpoints as (delete from checkpoint),
known as (
    insert into log_identity (vkey, origin, since)
    select $1, $2, greatest(clock_timestamp(), max(since) + interval '1 microsecond') from log_identity
), heard as (
    update witness set size = null, at = null, refused = null  -- of this log they have signed nothing
)
insert into log_pending select id from batch on conflict do nothing

-- name: running
select exists (select 1 from worker where at > now() - interval '10 seconds')

-- name: size
select coalesce(max(size), 0) from checkpoint
