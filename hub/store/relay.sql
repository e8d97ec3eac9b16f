-- The hot path: committing, reading and ending deliveries.

-- name: commit_messages
select commit_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                       $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38,
                       $39, $40, $41)

-- name: commit_signed_messages
-- The same for messages of which package signatures were verified, or whose PDFs are to be checked: what was found,
-- and what is to be done, is written in the same transaction.
with queued as (
    insert into pdf_queue (message, endpoint) select * from unnest($50::uuid[], $51::int[])
), found as (
    insert into package_signature (message, place, status, reason, subject, fingerprint, whole, weak)
    select * from unnest($42::uuid[], $43::smallint[], $44::text[], $45::text[], $46::text[], $47::text[],
                         $48::boolean[], $49::boolean[])
)
select commit_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                       $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38,
                       $39, $40, $41)

-- name: commit_progress
select commit_progress($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                       $21, $22, $23, $24, $25, $26)

-- name: hold_mailboxes
-- Mailboxes and lanes, which nobody moves until the transaction ends, and what is sealed there as handed over.
select b.endpoint, b.lane, b.floor, b.handed_sealed::text as sealed
from mailbox b
join unnest($1::int[], $2::smallint[]) k(endpoint, lane) on b.endpoint = k.endpoint and b.lane = k.lane
order by b.endpoint, b.lane for update of b

-- name: handed_entries
-- Entries ($1 to $3) that were handed over, with what their events say, the sequence before each, and whether that
-- is sealed already, by itself or with their end.
select i.endpoint, i.lane, i.seq, m.id, m.digest, m.sender, m.sender_id, m.route,
       coalesce((select p.seq from inbox p where p.endpoint = i.endpoint and p.lane = i.lane and p.seq < i.seq
                 order by p.seq desc limit 1), 0) as previous,
       coalesce((select h.last_seq from handed_run h
                 where h.endpoint = i.endpoint and h.lane = i.lane and h.first_seq <= i.seq
                 order by h.first_seq desc limit 1), 0) >= i.seq
       or coalesce((select p.last_seq >= i.seq and p.handed_at is not null from progress p
                    where p.endpoint = i.endpoint and p.lane = i.lane and p.first_seq <= i.seq
                    order by p.first_seq desc limit 1), false) as sealed
from unnest($1::int[], $2::smallint[], $3::bigint[]) k(endpoint, lane, seq)
join inbox i on i.endpoint = k.endpoint and i.lane = k.lane and i.seq = k.seq
join message m on m.id = i.message
order by i.endpoint, i.lane, i.seq

-- name: commit_handed
select commit_handed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- name: signed_entries
-- The documents at sequences $2 of an endpoint's mailbox, ended or not.
select i.lane, i.seq, m.id, m.digest
from unnest($2::bigint[]) k(seq)
cross join unnest(array[0, 1, 2]::smallint[]) l(lane)
join inbox i on i.endpoint = $1 and i.lane = l.lane and i.seq = k.seq
join message m on m.id = i.message

-- name: commit_events
select commit_events($1, $2, $3, $4, $5, $6, $7, $8)

-- name: find_submissions
select s.endpoint, s.sender_id, s.message, s.digest
from unnest($1::int[], $2::text[]) k(endpoint, sender_id)
join submission s on s.endpoint = k.endpoint and s.sender_id = k.sender_id

-- name: missing_attachments
-- Which of these the endpoint may not name, because they are absent or only others uploaded them.
select w.sha256 from unnest($2::bytea[]) w(sha256)
where not exists (select 1 from attachment_owner o where o.sha256 = w.sha256 and o.endpoint = $1)

-- name: read_mailbox
-- Up to $4 entries of each lane beyond what is done and beyond $2, up to $6 (both by lane), with bodies up to $3
-- bytes; where a lane's bodies come to more than its share of bytes ($5, by lane), `cut` is true and there is no
-- body.
select lane, seq, id, accepted_at, endpoint, sender_id, sender, format, digest, size, expires_at, route, floor, done,
       sealed, bytes > share as cut, case when inline and bytes <= share then body end as body, repeats
from (
    -- What repeats an earlier document is in a table of its own, with few rows.
    select i.lane, i.seq, m.id, m.accepted_at, m.endpoint, m.sender_id, m.sender, m.format, m.digest, m.size,
           m.expires_at, m.route, m.body, b.floor, not isempty(b.done) as done, ($5::bigint[])[b.lane + 1] as share,
           case when not isempty(b.handed_sealed) then b.handed_sealed::text end as sealed,
           m.size <= $3 as inline, exists (select 1 from repeated p where p.message = m.id) as repeats,
           sum(case when m.size <= $3 then m.size else 0 end) over (partition by i.lane order by i.seq) as bytes
    from mailbox b
    cross join lateral (
        select lane, seq, message from inbox
        where endpoint = b.endpoint and lane = b.lane and seq > greatest(b.floor, ($2::bigint[])[b.lane + 1])
          and seq <= ($6::bigint[])[b.lane + 1] and not b.done @> seq
        order by seq limit $4
    ) i
    join message m on m.id = i.message
    where b.endpoint = $1
) page
order by lane, seq

-- name: cut_range
-- Where to cut a long acknowledgement of a mailbox's lane up to $3: the $4-th sequence that is not done (null
-- when there are fewer). And where the lane ends.
select coalesce((select seq from inbox where endpoint = b.endpoint and lane = b.lane order by seq desc limit 1), 0) as last,
       (select seq from inbox
        where endpoint = b.endpoint and lane = b.lane and seq > b.floor and seq <= $3 and not b.done @> seq
        order by seq offset $4 - 1 limit 1) as cut
from mailbox b where b.endpoint = $1 and b.lane = $2

-- name: read_entries
-- In one snapshot: the mailboxes ($1, $2) and where each ends (rows without `id`), then the entries not done in
-- ranges (low, high] of mailboxes ($3 to $6), with what their events say. For a range that is `sparse` ($7:
-- entries acknowledged one by one) also the sequence before each.
select b.endpoint, b.lane, null::bigint as seq, null::uuid as id, null::bytea as digest, null as sender,
       null as sender_id, null::int as origin, null as route, null::bigint as previous,
       b.floor, b.done::text as done, b.handed_sealed::text as sealed,
       coalesce((select seq from inbox where endpoint = b.endpoint and lane = b.lane
                 order by seq desc limit 1), 0) as last
from unnest($1::int[], $2::smallint[]) k(endpoint, lane)
join mailbox b on b.endpoint = k.endpoint and b.lane = k.lane
union all
select i.endpoint, i.lane, i.seq, m.id, m.digest, m.sender, m.sender_id, m.endpoint, m.route,
       case when k.sparse then
           coalesce((select p.seq from inbox p where p.endpoint = i.endpoint and p.lane = i.lane and p.seq < i.seq
                     order by p.seq desc limit 1), 0)
       end,
       null, null, null, null
from unnest($3::int[], $4::smallint[], $5::bigint[], $6::bigint[], $7::boolean[]) k(endpoint, lane, low, high, sparse)
join mailbox b on b.endpoint = k.endpoint and b.lane = k.lane
cross join lateral (
    -- `offset 0` keeps this a query of its own; joined directly, the bounds become a filter over everything
    -- that the mailbox ever held (an acknowledgement of one entry then costs 0.4 µs for each of them).
    select endpoint, lane, seq, message from inbox
    where endpoint = k.endpoint and lane = k.lane and seq > greatest(k.low, b.floor) and seq <= k.high
      and not b.done @> seq
    offset 0
) i
join message m on m.id = i.message

-- name: set_handed
update mailbox b set handed = k.seq
from unnest($1::int[], $2::smallint[], $3::bigint[]) k(endpoint, lane, seq)
where b.endpoint = k.endpoint and b.lane = k.lane and b.handed < k.seq

-- name: waiting
-- Which of these mailboxes hold something not done beyond the given sequences: the floor under lost wake-ups.
select distinct k.endpoint
from unnest($1::int[], $2::smallint[], $3::bigint[]) k(endpoint, lane, seq)
join mailbox b on b.endpoint = k.endpoint and b.lane = k.lane
where exists (select 1 from inbox i where i.endpoint = k.endpoint and i.lane = k.lane
              and i.seq > greatest(k.seq, b.floor) and not b.done @> i.seq)

-- name: notify
select pg_notify('lienthong_mail', p) from unnest($1::text[]) p
