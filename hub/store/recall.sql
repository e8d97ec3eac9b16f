-- Who reads which mailbox, and recalling what nobody has been given.

-- name: new_reader
insert into reader (id) values ($1) on conflict (id) do update set at = now()

-- name: renew_reader
update reader set at = now() where id = $1 returning id

-- name: drop_reader
delete from reader where id = $1 and not exists (select 1 from open_mailbox where reader = $1)

-- name: give_up_readers
select give_up_readers($1)

-- name: open_mailboxes
select open_mailboxes($1, $2)

-- name: close_mailboxes
select close_mailboxes($1, $2, $3, $4, $5)

-- name: open_elsewhere
-- Which of these mailboxes somebody has open.
select distinct endpoint from open_mailbox where endpoint = any($1::int[])

-- name: ask_to_close
select pg_notify('lienthong_close', p) from unnest($1::text[]) p

-- name: hold
-- Until the transaction ends nobody opens the mailbox.
select pg_advisory_xact_lock(7020, $1)

-- name: reach
-- A mailbox that is held: whether somebody has it open, and up to where each lane was given.
select b.lane, greatest(b.given, b.handed) as given,
       exists (select 1 from open_mailbox o where o.endpoint = b.endpoint) as open
from mailbox b where b.endpoint = $1

-- name: add_recalled
insert into recalled select m, $1 from unnest($2::uuid[]) m on conflict do nothing

-- name: standing
-- Where one message is in the mailboxes of endpoints $1, at sequence $2 of lane $3: not ended, and beyond what was given.
select endpoint from mailbox
where endpoint = any($1::int[]) and lane = $3 and floor < $2 and not done @> $2::bigint
  and greatest(given, handed) < $2

-- name: recalled_at
select endpoint from recalled where message = $1
