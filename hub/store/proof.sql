-- What proofs are put together from (hub/evidence/proof.py).

-- name: places
-- Where batches are in the log, as far as they are.
select batch, first from log_batch where batch = any($1::uuid[])

-- name: checkpoint
-- Of the checkpoints of at least $1 entries the one that proves most: signed by most witnesses, then stamped, then
-- the earliest, which bounds the time best. Looked for among the first $2 signatures, the first stamp, and the newest.
select c.size, c.at, c.root, c.note,
       (select count(*) from checkpoint_signature s where s.size = c.size) as signatures,
       (select string_agg(s.line, '' order by s.at, s.name) from checkpoint_signature s where s.size = c.size) as lines,
       exists (select 1 from checkpoint_timestamp t where t.size = c.size) as stamped
from checkpoint c
where c.size >= $1 and c.size in (
    select size from (select size from checkpoint_signature where size >= $1 order by size limit $2) s
    union select min(size) from checkpoint_timestamp where size >= $1
    union select max(size) from checkpoint
)
order by signatures desc, stamped desc, c.size
limit 1

-- name: tokens
select token from checkpoint_timestamp where size = $1 order by at, authority
