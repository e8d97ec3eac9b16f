-- Links to other hubs and the axis: see migrations/0007_links.sql and hub/couriers/link.py.

-- name: links_since
select endpoint, url, system_id, secret, utc_hours, branch, is_default, poll_seconds, retry_seconds, sync_seconds,
       active
from link where revision > $1

-- name: add_link
insert into link (endpoint, url, system_id, secret, utc_hours, branch, is_default, poll_seconds, retry_seconds,
                  sync_seconds, revision)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (endpoint) do nothing returning endpoint

-- name: clear_default
update link set is_default = false, revision = $1 where is_default

-- name: set_secret
update link set secret = $2, revision = $3 where endpoint = $1 returning endpoint

-- name: set_active
update link set active = $2, revision = $3 where endpoint = $1 returning endpoint

-- name: list_links
select l.endpoint, e.name, l.url, l.system_id, l.branch, l.is_default, l.active and e.active as active,
       l.poll_seconds, l.retry_seconds, l.sync_seconds, l.created_at,
       s.last_success_at, s.last_error_at, s.last_error, coalesce(s.failures, 0) as failures, s.retry_at,
       coalesce(s.sent, 0) as sent, coalesce(s.fetched, 0) as fetched, coalesce(s.refused_there, 0) as refused_there,
       coalesce(s.refused_here, 0) as refused_here, s.synced_at, s.synced,
       (select count(*) from agency a where a.endpoint = l.endpoint and a.active) as agencies,
       w.waiting, w.oldest_at
from link l join endpoint e on e.id = l.endpoint left join link_state s on s.endpoint = l.endpoint
cross join lateral (
    -- Counting goes no further than this many of a lane.
    select coalesce(sum(n.waiting), 0)::bigint as waiting, min(n.oldest) as oldest_at
    from mailbox b cross join lateral (
        select count(*) as waiting, to_timestamp(min(seq) / 1000000.0) as oldest from (
            select seq from inbox i where i.endpoint = b.endpoint and i.lane = b.lane and i.seq > b.floor
              and not b.done @> i.seq order by i.seq limit 100000) k
    ) n where b.endpoint = l.endpoint
) w
where $1::text is null or e.name = $1
order by e.name

-- name: states
select l.endpoint, e.name, l.active and e.active as active, s.last_success_at, s.last_error_at, s.last_error,
       coalesce(s.failures, 0) as failures, s.retry_at, s.synced_at, coalesce(s.sent, 0) as sent,
       coalesce(s.fetched, 0) as fetched, coalesce(s.refused_there, 0) as refused_there,
       coalesce(s.refused_here, 0) as refused_here
from link l join endpoint e on e.id = l.endpoint left join link_state s on s.endpoint = l.endpoint
order by e.name

-- name: failed_transfers
select message, at, tries, error, refused from link_transfer
where endpoint = $1 and error is not null order by at desc limit $2

-- name: add_order
insert into link_order (endpoint, what, message) values ($1, $2, $3)

-- name: take_orders
delete from link_order where endpoint = $1 returning what, message

-- name: transfers
select message, peer_id, tries, refused from link_transfer where endpoint = $1 and message = any($2::uuid[])

-- name: put_transfer
insert into link_transfer (endpoint, message, at, tries, peer_id, error, refused)
values ($1, $2, now(), 1, $3, $4, $5)
on conflict (endpoint, message) do update
set at = now(), tries = link_transfer.tries + 1, peer_id = coalesce(excluded.peer_id, link_transfer.peer_id),
    error = excluded.error, refused = excluded.refused
returning tries

-- name: fetches
select peer_id, error from link_fetch where endpoint = $1 and peer_id = any($2::text[])

-- name: put_fetch
insert into link_fetch (endpoint, peer_id, at, message, error) values ($1, $2, now(), $3, $4)
on conflict (endpoint, peer_id) do nothing

-- name: forget_fetches
-- What a peer has not listed for so long it will not list again.
delete from link_fetch where at < now() - interval '400 days'

-- name: forget_transfers
-- What still waits was tried since.
delete from link_transfer where at < now() - interval '400 days'

-- name: add_state
insert into link_state (endpoint, last_success_at, last_error_at, last_error, failures, retry_at,
                        sent, fetched, refused_there, refused_here)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (endpoint) do update
set last_success_at = coalesce(excluded.last_success_at, link_state.last_success_at),
    last_error_at = coalesce(excluded.last_error_at, link_state.last_error_at),
    last_error = coalesce(excluded.last_error, link_state.last_error),
    failures = excluded.failures, retry_at = excluded.retry_at,
    sent = link_state.sent + excluded.sent, fetched = link_state.fetched + excluded.fetched,
    refused_there = link_state.refused_there + excluded.refused_there,
    refused_here = link_state.refused_here + excluded.refused_here

-- name: synced
insert into link_state (endpoint, synced_at, synced) values ($1, now(), $2)
on conflict (endpoint) do update set synced_at = now(), synced = excluded.synced

-- name: synced_again
update link_state set synced_at = now() where endpoint = $1

-- name: synced_at
select synced_at from link_state where endpoint = $1

-- name: noticed
select id, sender, kind, format, document_id from message where id = $1

-- name: create_import
create temporary table linked (code text, name text, parent text, mail text) on commit drop

-- name: import_agencies
-- Only what is new or differs, and nothing that this hub serves itself: what has an endpoint other than the link.
insert into agency (code, name, parent, endpoint, mail, revision)
select code, name, parent, $1, mail, $2 from linked
on conflict (code) do update
set name = excluded.name, parent = excluded.parent, endpoint = excluded.endpoint, mail = excluded.mail,
    active = true, revision = excluded.revision
where (agency.endpoint is null or agency.endpoint = $1)
  and (agency.name, coalesce(agency.parent, ''), agency.mail, agency.active, agency.endpoint)
      is distinct from (excluded.name, coalesce(excluded.parent, ''), excluded.mail, true, excluded.endpoint)

-- name: close_agencies
update agency set active = false, revision = $2
where endpoint = $1 and active and code = any($3::text[])
