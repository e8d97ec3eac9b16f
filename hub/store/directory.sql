-- Reading and changing the directory. Changes hold advisory lock 7003, so that revisions commit in order.

-- name: revision
select greatest(
    (select max(revision) from endpoint), (select max(revision) from agency),
    (select max(revision) from recipient_group), (select max(revision) from signing_key),
    (select max(revision) from credential), (select max(revision) from axis_system),
    (select max(revision) from link), (select max(revision) from linked_hub), (select max(revision) from link_key),
    (select max(revision) from trust_anchor),
    (select max(revision) from key_certificate), (select max(revision) from revocation), 0)

-- name: endpoints_since
select id, name, active, rate_messages, rate_bytes, edxml_signatures, edxml_pins, edxml_any_certificate,
       pdf_signatures, pdf_countersigned, signed_acknowledgements
from endpoint where revision > $1

-- name: agencies_since
select code, name, parent, aliases, endpoint, active, mail, system from agency where revision > $1

-- name: groups_since
select name, members, active from recipient_group where revision > $1

-- name: keys_since
select kid, jwk, x5t, endpoint, agency, not_before, not_after, active from signing_key where revision > $1

-- name: credentials_since
select hash, role, endpoint, label, expires_at, active from credential where revision > $1

-- name: lock
select pg_advisory_xact_lock(7003)

-- name: next_revision
select nextval('directory_revision')

-- name: add_endpoint
insert into endpoint (name, revision) values ($1, $2) on conflict (name) do nothing returning id

-- name: add_mailbox
insert into mailbox (endpoint, lane) select $1, lane from unnest(array[0, 1, 2]::smallint[]) lane

-- name: set_endpoint_active
update endpoint set active = $2, revision = $3 where name = $1 returning id

-- name: set_endpoint_limits
update endpoint set rate_messages = $2, rate_bytes = $3, revision = $4 where name = $1 returning id

-- name: set_endpoint_signatures
update endpoint set edxml_signatures = $2, edxml_pins = $3, edxml_any_certificate = $4, revision = $5
where name = $1 returning id

-- name: set_endpoint_pdf_signatures
update endpoint set pdf_signatures = $2, pdf_countersigned = $3, revision = $4 where name = $1 returning id

-- name: set_endpoint_acknowledgements
update endpoint set signed_acknowledgements = $2, revision = $3 where name = $1 returning id

-- name: put_agency
insert into agency (code, name, parent, aliases, endpoint, revision) values ($1, $2, $3, $4, $5, $6)
on conflict (code) do update
set name = excluded.name, parent = excluded.parent, aliases = excluded.aliases,
    endpoint = coalesce(excluded.endpoint, agency.endpoint), active = true, revision = excluded.revision

-- name: assign_agencies
update agency set endpoint = $1, revision = $2 where code = any($3::text[]) returning code

-- name: create_import
create temporary table imported (
    code text, name text, parent text, aliases text[], endpoint_name text, line int) on commit drop

-- name: import_endpoints
with named as (select distinct endpoint_name as name from imported where endpoint_name is not null)
insert into endpoint (name, revision) select name, $1 from named on conflict (name) do nothing returning id

-- name: import_mailboxes
insert into mailbox (endpoint, lane)
select id, lane from unnest($1::int[]) id, unnest(array[0, 1, 2]::smallint[]) lane

-- name: import_agencies
insert into agency (code, name, parent, aliases, endpoint, revision)
select i.code, i.name, i.parent, i.aliases, e.id, $1
from imported i left join endpoint e on e.name = i.endpoint_name
on conflict (code) do update
set name = excluded.name, parent = excluded.parent, aliases = excluded.aliases,
    endpoint = coalesce(excluded.endpoint, agency.endpoint), active = true, revision = excluded.revision

-- name: put_group
insert into recipient_group (name, members, revision) values ($1, $2, $3)
on conflict (name) do update set members = excluded.members, active = true, revision = excluded.revision

-- name: put_key
insert into signing_key (kid, x5t, jwk, endpoint, agency, not_before, not_after, revision)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (kid) do update
set active = true, not_before = excluded.not_before, not_after = excluded.not_after, x5t = excluded.x5t,
    revision = excluded.revision
where signing_key.endpoint is not distinct from excluded.endpoint
  and signing_key.agency is not distinct from excluded.agency
returning kid

-- name: disable_key
update signing_key set active = false, revision = $2 where kid = $1 returning kid

-- name: add_credential
insert into credential (hash, kind, role, endpoint, label, expires_at, revision)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (hash) do nothing returning hash

-- name: retire_tokens
-- Keeps the newest $3 tokens of an endpoint, the one just made among them.
update credential set active = false, revision = $2
where kind = 'token' and endpoint = $1 and active
  and hash not in (select hash from credential where kind = 'token' and endpoint = $1 and active
                   order by created_at desc, revision desc limit $3)

-- name: revoke_credentials
update credential set active = false, revision = $2 where endpoint = $1 and active returning hash

-- name: revoke_administrators
update credential set active = false, revision = $2 where role <> 'endpoint' and label = $1 and active returning hash

-- name: list_administrators
select label, role, created_at, expires_at from credential where role <> 'endpoint' and active order by created_at

-- name: list_endpoints
select e.id, e.name, e.active, e.created_at, s.at as seen_at, e.rate_messages, e.rate_bytes,
       e.edxml_signatures, e.edxml_pins, e.edxml_any_certificate, e.pdf_signatures, e.pdf_countersigned,
       e.signed_acknowledgements,
       (select count(*) from agency a where a.endpoint = e.id and a.active) as agencies,
       (select count(*) from credential c where c.endpoint = e.id and c.active) as credentials,
       (select count(*) from signing_key k where k.endpoint = e.id and k.active) as keys
from endpoint e left join endpoint_seen s on s.endpoint = e.id
order by e.name

-- name: list_agencies
select a.code, a.name, a.parent, a.aliases, e.name as endpoint, a.active
from agency a left join endpoint e on e.id = a.endpoint
where $1::text is null or a.code ilike '%' || $1 || '%' or a.name ilike '%' || $1 || '%' or $1 = any(a.aliases)
   or a.parent = $1
order by a.code limit $2

-- name: agency_code
select code from agency where code = $1 or $1 = any(aliases) order by code = $1 desc limit 1

-- name: endpoint_by_name
select id, name, active, rate_messages, rate_bytes, edxml_signatures, edxml_pins, edxml_any_certificate
from endpoint where name = $1

-- name: taken_aliases
-- Codes and aliases that another agency already answers to.
select a.code, x as taken from agency a, unnest(a.aliases || a.code) x
where x = any($1::text[]) and not a.code = any($2::text[]) and a.active

-- name: notify
select pg_notify('lienthong_directory', '')
