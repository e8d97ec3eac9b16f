-- Signatures in PDFs: results by digest, and the queue of messages to check.

-- name: anchors
select c.der, coalesce(a.revocation = 'hard', false) as hard
from trust_anchor a join certificate c on c.sha256 = a.sha256
where a.active

-- name: revocation_lists
-- The newest of each place that is no longer than $1 bytes.
select distinct on (url) der from revocation_answer
where kind = 'crl' and length(der) <= $1 order by url, fetched_at desc

-- name: result
-- What was found of the PDF $1 under the trust $2 since $3; could it not be checked, since $4.
select result from pdf_result
where sha256 = $1 and trust = $2 and checked_at >= case when result::jsonb ->> 'verdict' = 'limit' then $4::timestamptz else $3::timestamptz end

-- name: keep_result
insert into pdf_result (sha256, trust, checked_at, result) values ($1, $2, $3, $4)
on conflict (sha256, trust) do update set checked_at = excluded.checked_at, result = excluded.result

-- name: forget_results
delete from pdf_result where checked_at < $1

-- name: take
-- Of the messages that nobody works on, that which has waited longest of the next endpoint after $2; it is the
-- caller's for $1.
update pdf_queue q set due = now() + $1::interval, tries = tries + 1
where message = (
    select message from pdf_queue where due <= now() and endpoint > $2 order by endpoint, due limit 1
    for update skip locked
)
returning message, endpoint, since, tries

-- name: extend
update pdf_queue set due = now() + $2::interval where message = $1

-- name: done
-- What was put into the queue again since then ($2) stays there.
delete from pdf_queue where message = $1 and since = $2

-- name: add
insert into pdf_queue (message, endpoint) select id, endpoint from message where id = $1
on conflict (message) do update set since = now(), due = now() returning message

-- name: waiting
select count(*) as messages, extract(epoch from now() - min(since))::float8 as oldest from pdf_queue

-- name: list_queue
select q.message, e.name as endpoint, q.since, q.due, q.tries
from pdf_queue q join endpoint e on e.id = q.endpoint order by q.since limit $1

-- name: recorded
-- Events of kind $2 of the message $1 (since $3), with the attachment that each is about.
select event::jsonb #>> '{attachment,sha256}' as sha256, at, event from event
where message = $1 and kind = $2 and ($3::timestamptz is null or at >= $3) order by at, batch, leaf
