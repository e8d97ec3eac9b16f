-- Systems that speak the national axis's interface: who they are, what they ask for, what waits for them.

-- name: systems_since
select system_id, endpoint, utc_hours, array_remove(array[secret, previous], null) as secrets, active
from axis_system where revision > $1

-- name: add_system
insert into axis_system (system_id, endpoint, utc_hours, secret, revision) values ($1, $2, $3, $4, $5)
on conflict (system_id) do nothing returning system_id

-- name: set_secret
update axis_system set previous = case when $3::boolean then secret end, secret = $2, revision = $4
where system_id = $1 returning system_id

-- name: set_system_active
update axis_system set active = $2, revision = $3 where system_id = $1 returning system_id

-- name: list_systems
select x.system_id, e.name as endpoint, x.active and e.active as active, x.utc_hours, x.created_at, s.at as seen_at,
       x.previous is not null as two_secrets,
       (select count(*) from agency a where a.endpoint = x.endpoint and a.active) as agencies,
       (select count(*) from axis_request r where r.system_id = x.system_id and r.state = 'waiting') as waiting
from axis_system x join endpoint e on e.id = x.endpoint left join endpoint_seen s on s.endpoint = x.endpoint
order by x.system_id

-- name: request_by_signature
select id, state, system_id, kind, code from axis_request where signature = $1

-- name: same_request
select id from axis_request
where system_id = $1 and kind = $2 and code = $3 and name = $4 and parent = $5 and mail = $6 and mobile = $7
  and fax = $8 and state = 'waiting'

-- name: supersede
-- Of two different requests about one agency the later counts.
update axis_request set state = 'superseded', decided_at = now()
where system_id = $1 and code = $2 and state = 'waiting'

-- name: count_waiting
select count(*) from axis_request where system_id = $1 and state = 'waiting'

-- name: add_request
insert into axis_request (system_id, kind, code, name, parent, mail, mobile, fax, endpoint, signature)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning id

-- name: decide
update axis_request set state = $2, decided_at = now() where id = $1

-- name: waiting_request
select endpoint, kind, code, name, parent, mail, mobile, fax from axis_request
where id = $1 and state = 'waiting' for update

-- name: waiting_requests
select r.id, r.system_id, e.name as endpoint, r.kind, r.code, r.name, r.parent, r.mail, r.mobile, r.fax, r.at
from axis_request r join endpoint e on e.id = r.endpoint
where r.state = 'waiting' order by r.at, r.id

-- name: agency
select code, endpoint from agency where code = $1 or ($1 = any(aliases) and active) order by code = $1 desc limit 1

-- name: branch
-- The code of agency $1, if it or a unit above it is one that endpoint $2 speaks for, all of them active, and if
-- it does not lie below agency $3, which is to come under it.
with recursive up as (
    select code, parent, endpoint, code as asked, 0 as steps from agency
    where code = (select code from agency where (code = $1 or $1 = any(aliases)) and active
                  order by code = $1 desc limit 1)
    union all
    select a.code, a.parent, a.endpoint, u.asked, u.steps + 1 from up u join agency a on a.code = u.parent
    where a.active and u.steps < 20
)
select asked from up group by asked having bool_or(endpoint = $2) and not bool_or(code = $3)

-- name: register_agency
insert into agency (code, name, parent, endpoint, mail, revision) values ($1, $2, $3, $4, $5, $6)
on conflict (code) do update
set name = excluded.name, parent = excluded.parent, endpoint = excluded.endpoint, mail = excluded.mail,
    active = true, revision = excluded.revision

-- name: close_agency
update agency set active = false, revision = $2 where code = $1

-- name: waiting_documents
-- Up to $2 documents of each lane that have not ended, oldest first, from $3 (by lane) on; and a row without an id for
-- each lane that says where it ends. The ranges are unpacked once (`+`), not for every entry.
with box as materialized (
    select lane, floor, done + '{}'::int8multirange as done from mailbox where endpoint = $1
)
select b.lane, i.seq, m.id, m.accepted_at, m.expires_at, m.sender, m.route, n.at as noted_at,
       exists (select 1 from repeated p where p.message = m.id) as repeats
from box b
cross join lateral (
    select seq, message from inbox
    where endpoint = $1 and lane = b.lane and seq > greatest(b.floor, ($3::bigint[])[b.lane + 1])
      and kind = 0 and not b.done @> seq
    order by seq limit $2
) i
join message m on m.id = i.message
left join axis_note n on n.endpoint = $1 and n.message = i.message
union all
select b.lane, coalesce((select seq from inbox where endpoint = $1 and lane = b.lane order by seq desc limit 1), 0),
       null, null, null, null, null, null, false
from box b
order by lane, seq

-- name: waiting_statuses
-- The same of statuses, by the index that holds them alone.
with box as materialized (
    select lane, floor, done + '{}'::int8multirange as done from mailbox where endpoint = $1
)
select b.lane, i.seq, m.id, m.accepted_at, m.expires_at, m.sender, m.route, n.at as noted_at, false as repeats
from box b
cross join lateral (
    select seq, message from inbox
    where endpoint = $1 and lane = b.lane and seq > greatest(b.floor, ($3::bigint[])[b.lane + 1])
      and kind = 1 and not b.done @> seq
    order by seq limit $2
) i
join message m on m.id = i.message
left join axis_note n on n.endpoint = $1 and n.message = i.message
union all
select b.lane, coalesce((select seq from inbox where endpoint = $1 and lane = b.lane order by seq desc limit 1), 0),
       null, null, null, null, null, null, false
from box b
order by lane, seq

-- name: count_documents
-- How many documents wait, counted up to $2.
with box as materialized (
    select lane, floor, done + '{}'::int8multirange as done from mailbox where endpoint = $1
)
select count(*) from (
    select 1 from box b join inbox i on i.endpoint = $1 and i.lane = b.lane and i.seq > b.floor
    where i.kind = 0 and not b.done @> i.seq limit $2
) w

-- name: count_statuses
with box as materialized (
    select lane, floor, done + '{}'::int8multirange as done from mailbox where endpoint = $1
)
select count(*) from (
    select 1 from box b join inbox i on i.endpoint = $1 and i.lane = b.lane and i.seq > b.floor
    where i.kind = 1 and not b.done @> i.seq limit $2
) w

-- name: delivery
select m.id, m.accepted_at, m.lane, m.format, m.kind, m.digest, m.size, m.route, m.body, b.seq_base + m.leaf as seq
from message m join batch b on b.id = m.batch
where m.id = $1 and not exists (select 1 from recalled r where r.message = m.id and r.endpoint = $2)

-- name: old_statuses
-- Statuses of a lane that came before $3 and have not ended, the oldest $4.
select i.seq from mailbox b
join inbox i on i.endpoint = b.endpoint and i.lane = b.lane and i.seq > b.floor
where b.endpoint = $1 and b.lane = $2 and i.kind = 1 and i.seq < seq_floor($3) and not b.done @> i.seq
order by i.seq limit $4

-- name: note
insert into axis_note (endpoint, message) values ($1, $2) on conflict do nothing

-- name: forget_note
delete from axis_note where endpoint = $1 and message = $2

-- name: forget_old_notes
delete from axis_note where at < now() - interval '90 days'

-- name: notes
select endpoint, at from axis_note where message = $1

-- name: sent_by_id
select id from message where id = $1 and endpoint = $2 and kind <> 2

-- name: sent_by_document
-- By the edXML DocumentId, or by the id that a native document has.
select id from message where document_id = $1 and endpoint = $2 and kind <> 2
union
select message from submission where endpoint = $2 and sender_id = $1
order by 1 limit $3
