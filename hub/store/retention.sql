-- Dropping old months.

-- name: oldest
-- The first month of which there is still a table, as YYYYMM; null when there is none. Also one that was detached and
-- not dropped: whoever was at it was killed between the two.
select min(right(c.relname, 6))
from unnest(monthly_tables()) t(name) join pg_class c on c.relname ~ ('^' || t.name || '_\d{6}$')
where c.relkind = 'r' and pg_table_is_visible(c.oid)

-- name: waiting
-- Mailboxes in which something waits that was committed before $1, and how much, most first. A day more is looked
-- at, because an entry may be committed a moment after its message's id was made.
select b.endpoint, e.name, count(*) as waiting
from mailbox b
join inbox i on i.endpoint = b.endpoint and i.lane = b.lane and i.seq > b.floor and not b.done @> i.seq
join endpoint e on e.id = b.endpoint
where i.seq < seq_floor($1::timestamptz + interval '1 day')
  and exists (select 1 from message m where m.id = i.message and m.id < uuid_floor($1))
group by b.endpoint, e.name
order by waiting desc, e.name

-- name: unlogged
-- Whether events sealed before $1 still wait for their place in the transparency log.
select exists (select 1 from log_pending where batch < uuid_floor($1))

-- name: partitions
-- The partitions of month $1 (YYYYMM) that are there, and whether one is half detached. In the order of
-- dropping: messages first, so that of one that is still there nothing else has left.
select p.relname as parent, c.relname as name, coalesce(i.inhdetachpending, false) as pending,
       i.inhrelid is not null as attached
from unnest(monthly_tables()) with ordinality t(name, place)
join pg_class p on p.oid = t.name::regclass
join pg_class c on c.oid = to_regclass(t.name || '_' || $1)
left join pg_inherits i on i.inhrelid = c.oid
order by t.name <> 'message', t.place

-- name: condemn_messages
-- The blobs of messages before $1 that no row holds.
insert into blob_garbage (sha256)
select distinct digest from message where id < uuid_floor($1) and body is null
on conflict (sha256) do update set since = excluded.since

-- name: forget_references
with gone as (delete from recalled where message < uuid_floor($1)),
listed as (delete from catalogue where message < uuid_floor($1)),
marked as (delete from repeated where message < uuid_floor($1)),
ways as (delete from hop where message < uuid_floor($1)),
signatures as (delete from package_signature where message < uuid_floor($1))
delete from reference where message < uuid_floor($1)

-- name: forget_uses
delete from attachment_use where message < uuid_floor($1)

-- name: condemn_attachments
-- Attachments uploaded before $1 that no message names any longer. Whoever wants to send one again uploads it again.
with gone as (
    delete from attachment a
    where a.uploaded_at < $1 and not exists (select 1 from attachment_use u where u.sha256 = a.sha256)
    returning sha256
), owners as (
    delete from attachment_owner o using gone where o.sha256 = gone.sha256
)
insert into blob_garbage (sha256) select sha256 from gone
on conflict (sha256) do update set since = excluded.since

-- name: spare
-- Of the blobs condemned before $1 those that something names leave the list.
delete from blob_garbage g
where since < $1
  and (exists (select 1 from attachment a where a.sha256 = g.sha256)
       or exists (select 1 from attachment_use u where u.sha256 = g.sha256)
       or exists (select 1 from message m where m.digest = g.sha256 and m.body is null))

-- name: garbage
-- Blobs to delete: condemned before $1, and named by nothing.
select sha256 from blob_garbage where since < $1

-- name: discarded
delete from blob_garbage where sha256 = any($1::bytea[])
