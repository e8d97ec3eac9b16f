-- Links to other hubs and the axis: see migrations/0007_links.sql, 0014_native_links.sql and hub/couriers/link.py.

-- name: links_since
select endpoint, url, system_id, secret, utc_hours, branch, is_default, poll_seconds, retry_seconds, sync_seconds,
       active, kind
from link where revision > $1

-- name: add_link
insert into link (endpoint, url, system_id, secret, utc_hours, branch, is_default, poll_seconds, retry_seconds,
                  sync_seconds, revision, kind)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict (endpoint) do nothing returning endpoint

-- name: clear_default
update link set is_default = false, revision = $1 where is_default

-- name: set_secret
update link set secret = $2, revision = $3 where endpoint = $1 returning endpoint

-- name: set_active
update link set active = $2, revision = $3 where endpoint = $1 returning endpoint

-- name: list_links
select l.endpoint, e.name, l.kind, l.url, l.system_id, l.branch, l.is_default, l.active and e.active as active,
       l.poll_seconds, l.retry_seconds, l.sync_seconds, l.created_at,
       s.last_success_at, s.last_error_at, s.last_error, coalesce(s.failures, 0) as failures, s.retry_at,
       coalesce(s.sent, 0) as sent, coalesce(s.fetched, 0) as fetched, coalesce(s.refused_there, 0) as refused_there,
       coalesce(s.refused_here, 0) as refused_here, s.synced_at, s.synced,
       (select count(*) from agency a where a.endpoint = l.endpoint and a.active) as agencies,
       (select count(*) from link_key k where k.endpoint = l.endpoint and k.present) as keys,
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

-- name: orders
select id, what, message from link_order where endpoint = $1 order by id

-- name: end_order
delete from link_order where id = $1

-- name: transfers
select message, peer_id, tries, refused, receipt from link_transfer
where endpoint = $1 and message = any($2::uuid[])

-- name: put_transfers
-- Messages ($2) that the peer has, as $3, with its receipts ($4; null where it gives none).
insert into link_transfer (endpoint, message, at, tries, peer_id, receipt)
select $1, message, now(), 1, peer_id, receipt
from unnest($2::uuid[], $3::text[], $4::text[]) t(message, peer_id, receipt)
on conflict (endpoint, message) do update
set at = now(), tries = link_transfer.tries + 1, peer_id = excluded.peer_id, error = null, refused = false,
    receipt = coalesce(excluded.receipt, link_transfer.receipt)

-- name: transferred_as
-- What this hub calls the message that the peer calls $2.
select message from link_transfer where endpoint = $1 and peer_id = $2

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

-- name: put_fetches
insert into link_fetch (endpoint, peer_id, at, message)
select $1, peer_id, now(), message from unnest($2::text[], $3::uuid[]) f(peer_id, message)
on conflict (endpoint, peer_id) do nothing

-- name: fetched_as
-- What the peer calls the message $2; one that lost it and was sent it again has given another name.
select peer_id from link_fetch where endpoint = $1 and message = $2 order by at desc limit 1

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
select id, sender, sender_id, kind, format, document_id, endpoint, digest, lane, route from message where id = $1

-- name: told
-- Whether a notice of the hub's was given under this name before.
select exists (select 1 from submission where endpoint = 0 and sender_id = $1)

-- name: create_import
create temporary table linked (code text, name text, parent text, mail text, aliases text[], system text)
on commit drop

-- name: import_agencies
-- Only what is new or differs, and nothing that this hub serves itself: what has an endpoint other than the link.
insert into agency (code, name, parent, endpoint, mail, aliases, system, revision)
select l.code, l.name, l.parent, $1, l.mail, coalesce(l.aliases, a.aliases, '{}'), l.system, $2
from linked l left join agency a on a.code = l.code
on conflict (code) do update
set name = excluded.name, parent = excluded.parent, endpoint = excluded.endpoint, mail = excluded.mail,
    aliases = excluded.aliases, system = excluded.system, active = true, revision = excluded.revision
where (agency.endpoint is null or agency.endpoint = $1)
  and (agency.name, coalesce(agency.parent, ''), agency.mail, agency.active, agency.endpoint, agency.aliases, agency.system)
      is distinct from (excluded.name, coalesce(excluded.parent, ''), excluded.mail, true, excluded.endpoint,
                        excluded.aliases, excluded.system)

-- name: close_agencies
update agency set active = false, revision = $2
where endpoint = $1 and active and code = any($3::text[])

-- name: hubs_since
select endpoint, branch, approval, hub_keys from linked_hub where revision > $1

-- name: keys_since
select endpoint, name, jwk, agency, system, not_before, not_after, present, approved from link_key where revision > $1

-- name: put_hub
insert into linked_hub (endpoint, branch, approval, revision) values ($1, $2, $3, $4)
on conflict (endpoint) do update
set branch = excluded.branch, approval = excluded.approval, revision = excluded.revision

-- name: list_hubs
select h.endpoint, e.name, e.active, h.branch, h.approval, h.name as hub, h.told_at, h.refused, s.at as seen_at,
       (select count(*) from agency a where a.endpoint = h.endpoint and a.active) as agencies,
       (select count(*) from link_key k where k.endpoint = h.endpoint and k.present and k.approved) as keys,
       (select count(*) from link_key k where k.endpoint = h.endpoint and k.present and k.approved is null) as waiting_keys
from linked_hub h join endpoint e on e.id = h.endpoint left join endpoint_seen s on s.endpoint = h.endpoint
where $1::text is null or e.name = $1
order by e.name

-- name: hub_told
update linked_hub set name = $2, told_at = now(), refused = $3 where endpoint = $1

-- name: set_hub_keys
update linked_hub set hub_keys = $2, revision = $3 where endpoint = $1 and hub_keys <> $2

-- name: create_keys
create temporary table vouched (
    name text, jwk text, agency text, system text, not_before timestamptz, not_after timestamptz) on commit drop

-- name: import_keys
-- The keys that the peer vouches for now; those that it does not any more end. A key that is another now, or another's,
-- waits anew where keys wait ($3).
with taken as (
    insert into link_key (endpoint, name, jwk, agency, system, not_before, not_after, present, approved, revision)
    select $1, name, jwk, agency, system, not_before, not_after, true, case when $3::boolean then null else true end, $2
    from vouched
    on conflict (endpoint, name) do update
    set jwk = excluded.jwk, agency = excluded.agency, system = excluded.system, not_before = excluded.not_before,
        not_after = excluded.not_after, present = true, revision = excluded.revision,
        approved = case
            when (link_key.jwk, coalesce(link_key.agency, ''), link_key.system)
                 is distinct from (excluded.jwk, coalesce(excluded.agency, ''), excluded.system) then excluded.approved
            when link_key.approved is null and not $3 then true
            else link_key.approved
        end
    where (link_key.jwk, coalesce(link_key.agency, ''), link_key.system, link_key.not_before, link_key.not_after, link_key.present)
          is distinct from (excluded.jwk, coalesce(excluded.agency, ''), excluded.system, excluded.not_before,
                            excluded.not_after, true)
       or (link_key.approved is null and not $3)
    returning 1
), gone as (
    update link_key set present = false, revision = $2
    where endpoint = $1 and present and name not in (select name from vouched)
    returning 1
)
select (select count(*) from taken) + (select count(*) from gone)

-- name: count_keys
select count(*) filter (where approved) as active, count(*) filter (where approved is null) as waiting
from link_key where endpoint = $1 and present

-- name: waiting_keys
-- Keys that wait for an operator, of all hubs or one; with the agencies that a system's key would be for.
select e.name as hub, k.name, k.jwk, k.at,
       coalesce(k.agency, (select string_agg(a.code, ' ' order by a.code) from (
           select code from agency where endpoint = k.endpoint and system = k.system and active
           order by code limit 20) a)) as agencies
from link_key k join endpoint e on e.id = k.endpoint
where k.present and k.approved is null and ($1::text is null or e.name = $1)
order by e.name, k.at, k.name

-- name: decide_keys
update link_key set approved = $3, revision = $4
where endpoint = $1 and approved is null and ($2::text is null or name = $2)
returning name

-- name: exchange_anew
-- Have every process look at its links again, and tell the peers what is new of this hub.
with links as (update link set revision = $1)
update linked_hub set revision = $1

-- name: add_hops
insert into hop (message, hops)
select message, string_to_array(hops, ' ') from unnest($1::uuid[], $2::text[]) h(message, hops)
on conflict do nothing

-- name: hops
select message, hops from hop where message = any($1::uuid[])

-- name: recorded_of
-- Which of these messages have an event of kind $2 at an endpoint.
select distinct message from event where message = any($1::uuid[]) and kind = $2 and endpoint = $3
