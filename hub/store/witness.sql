-- Witnesses of the transparency log.

-- name: try_lock
select pg_try_advisory_lock(7023)

-- name: newest
select size, note from checkpoint order by size desc limit 1

-- name: begin
-- The size that a witness signed last, as far as this hub knows; under another key it has signed nothing.
insert into witness (name, vkey) values ($1, $2)
on conflict (name) do update set
    vkey = excluded.vkey,
    size = case when witness.vkey = excluded.vkey then witness.size end,
    at = case when witness.vkey = excluded.vkey then witness.at end,
    refused = case when witness.vkey = excluded.vkey then witness.refused end
returning size

-- name: signed
-- A witness signed the checkpoint of $2 entries with the line $3, which states the time $4.
with kept as (
    insert into checkpoint_signature (size, name, line, at) values ($2, $1, $3, $4)
    on conflict (size, name) do update set line = excluded.line, at = excluded.at
)
update witness set size = $2, at = now(), clock_seconds = $5, failures = 0, refused = null where name = $1

-- name: failed
update witness set failures = $2, error_at = now(), error = $3, refused = $4 where name = $1

-- name: states
-- How the witnesses called $1 do. `lag`: for how long there has been a checkpoint that it has not signed.
select n.name, w.size, w.at, w.clock_seconds, coalesce(w.failures, 0) as failures, w.error_at, w.error, w.refused,
       coalesce(extract(epoch from now() - (
           select c.at from checkpoint c where c.size > coalesce(w.size, -1) order by c.size limit 1
       )), 0)::float8 as lag
from unnest($1::text[]) with ordinality as n (name, place) left join witness w using (name)
order by n.place
