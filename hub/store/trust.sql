-- Trust anchors, certificates of signers, and what is known of their revocation.

-- name: anchors_since
select sha256, revocation, not_before, not_after, subject, active from trust_anchor where revision > $1

-- name: certificates_since
select kid, certificate, chained, chain, valid_from, valid_until, subject, active
from key_certificate where revision > $1

-- name: revocations_since
select certificate, status, reason, revoked_at, answer, answered_at, fresh_until from revocation where revision > $1

-- name: put_anchor
insert into trust_anchor (sha256, revocation, crl_url, ocsp_url, not_before, not_after, subject, revision)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (sha256) do update
set revocation = excluded.revocation, crl_url = excluded.crl_url, ocsp_url = excluded.ocsp_url, active = true,
    revision = excluded.revision

-- name: remove_anchor
update trust_anchor set active = false, revision = $2 where sha256 = $1 and active returning subject

-- name: find_anchors
-- Anchors whose SHA-256 begins with $1 (hexadecimal).
select sha256, subject from trust_anchor where active and encode(sha256, 'hex') like $1 || '%'

-- name: active_anchors
select c.der from trust_anchor a join certificate c on c.sha256 = a.sha256 where a.active

-- name: put_certificate
insert into certificate (sha256, der) values ($1, $2) on conflict do nothing

-- name: certificates
select sha256, der from certificate where sha256 = any($1::bytea[])

-- name: authorities
-- Every certificate that is no signer's: what a chain may lead through.
select der from certificate c where not exists (select 1 from key_certificate k where k.certificate = c.sha256)

-- name: note_chain
insert into certificate_chain (leaf, since, chain)
select $1, $2, $3::bytea[]
where $3::bytea[] is distinct from (select chain from certificate_chain where leaf = $1 order by since desc limit 1)
on conflict (leaf, since) do update set chain = excluded.chain

-- name: chain_at
-- The chain of a certificate that was in force at $2; the first one known for what was accepted before it.
select chain from certificate_chain where leaf = $1
order by since <= $2 desc, case when since <= $2 then since end desc, since limit 1

-- name: put_key_certificate
insert into key_certificate (kid, certificate, chained, chain, valid_from, valid_until, subject, revision)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (kid, certificate) do update
set chained = excluded.chained, chain = excluded.chain, valid_from = excluded.valid_from,
    valid_until = excluded.valid_until, active = true, revision = excluded.revision

-- name: end_certificates
update key_certificate set active = false, revision = $2 where kid = $1 and active

-- name: has_certificate
select exists (select 1 from key_certificate k join signing_key s on s.kid = k.kid
               where k.kid = $1 and k.active and s.active)

-- name: certified
-- Certificates in use.
select k.kid, k.certificate, c.der, k.chained, k.chain, k.subject
from key_certificate k join certificate c on c.sha256 = k.certificate
where k.active

-- name: set_chain
update key_certificate
set chained = $3, chain = $4, valid_from = $5, valid_until = $6, revision = $7
where kid = $1 and certificate = $2

-- name: list_anchors
select a.sha256, a.subject, a.revocation, a.crl_url, a.ocsp_url, a.not_before, a.not_after, a.added_at,
       (select count(*) from key_certificate k where k.active and a.sha256 = any(k.chain)) as keys
from trust_anchor a where a.active order by a.not_after, a.sha256

-- name: list_keys
-- Keys, each as often as it has certificates. $1: those that are disabled too.
select k.kid, e.name as endpoint, k.agency, c.certificate, c.subject, c.chained, c.chain, c.valid_from, c.valid_until,
       k.not_before, k.not_after, k.active, r.status, r.reason, r.revoked_at, r.answered_at, r.fresh_until
from signing_key k
left join key_certificate c on c.kid = k.kid and c.active
left join endpoint e on e.id = k.endpoint
left join revocation r on r.certificate = c.certificate
where $1 or k.active
order by coalesce(e.name, k.agency), k.kid, c.valid_until

-- -- revocation ----------------------------------------------------------------------------------

-- name: due
-- Certificates in chains of keys in use (all but the anchors), each with its issuer, of which nobody asked for $1,
-- or in vain since longer ago than the pause that grows with each failure, from $2. Where the policy, the anchor's
-- own or else $4, is to ask nobody, none.
select distinct on (c.sha256) c.sha256, c.der, i.der as issuer, a.crl_url, a.ocsp_url, r.answer, r.status,
       r.fresh_until, r.answered_at, w.der as answer_der, w.kind as answer_kind, q.failures
from key_certificate k
join signing_key s on s.kid = k.kid and s.active
cross join lateral generate_series(1, cardinality(k.chain) - 1) place
join certificate c on c.sha256 = k.chain[place]
join certificate i on i.sha256 = k.chain[place + 1]
join trust_anchor top on top.sha256 = k.chain[cardinality(k.chain)] and top.active
left join trust_anchor a on a.sha256 = i.sha256 and a.active
left join revocation r on r.certificate = c.sha256
left join revocation_answer w on w.sha256 = r.answer
left join revocation_question q on q.certificate = c.sha256
where k.active and coalesce(top.revocation, $4::text) <> 'off'
  and (q.certificate is null
       or q.asked_at < now() - case when q.failures = 0 then $1::interval
                                    else least($1, $2::interval * power(2, least(q.failures, 16) - 1)) end)
order by c.sha256, a.sha256 nulls last
limit $3

-- name: put_answer
insert into revocation_answer (sha256, kind, url, fetched_at, der) values ($1, $2, $3, $4, $5) on conflict do nothing

-- name: answers
select sha256, kind, url, fetched_at, der from revocation_answer where sha256 = any($1::bytea[])

-- name: put_revocation
insert into revocation (certificate, status, reason, revoked_at, answer, answered_at, fresh_until, revision)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (certificate) do update
set status = excluded.status, reason = excluded.reason, revoked_at = excluded.revoked_at, answer = excluded.answer,
    answered_at = excluded.answered_at, fresh_until = excluded.fresh_until, revision = excluded.revision
-- As `protocol.certificate_revocation` has it, also against a process that asked before another learned of the revocation.
where revocation.status <> 'revoked' or excluded.status = 'revoked'
   or revocation.reason = 'certificate_hold' and excluded.answered_at > revocation.answered_at

-- name: note_asked
insert into revocation_question (certificate, asked_at, answered_at, failures, failure)
select certificate, now(), case when failure = '' then now() end, case when failure = '' then 0 else 1 end, failure
from unnest($1::bytea[], $2::text[]) n(certificate, failure)
on conflict (certificate) do update
set asked_at = excluded.asked_at, answered_at = coalesce(excluded.answered_at, revocation_question.answered_at),
    failures = case when excluded.failure = '' then 0 else revocation_question.failures + 1 end,
    failure = excluded.failure

-- name: forget_asked
-- So that everything is asked anew at the next turn.
delete from revocation_question

-- -- ends ----------------------------------------------------------------------------------------

-- name: in_use
-- Certificates in use, with what each is and whose.
select a.sha256, 'anchor' as kind, '' as owner, a.subject, a.not_after
from trust_anchor a where a.active
union
select k.certificate, 'signer', coalesce(e.name, s.agency), k.subject, k.valid_until
from key_certificate k join signing_key s on s.kid = k.kid and s.active left join endpoint e on e.id = s.endpoint
where k.active

-- name: count_statuses
-- Of certificates in chains of keys in use: of how many is known what, now.
select count(*) filter (where status = 'revoked') as revoked,
       count(*) filter (where status = 'good' and fresh_until >= now()) as good,
       count(*) filter (where status is null or status = 'unknown' or (status = 'good' and fresh_until < now()))
           as unknown
from (
    select distinct on (place.certificate) place.certificate, r.status, r.fresh_until
    from key_certificate k
    join signing_key s on s.kid = k.kid and s.active
    cross join lateral unnest(k.chain[: cardinality(k.chain) - 1]) place(certificate)
    left join revocation r on r.certificate = place.certificate
    where k.active
) known

-- name: troubled
-- Certificates in use that somebody should look at: $1 days or less to their end, revoked, or not known of.
select u.sha256, u.kind, u.owner, u.subject, u.not_after, u.asked, r.status, r.reason, r.revoked_at, r.answered_at,
       r.fresh_until, q.failure
from (
    select a.sha256, 'anchor' as kind, '' as owner, a.subject, a.not_after, false as asked
    from trust_anchor a where a.active
    union
    select k.certificate, 'signer', coalesce(e.name, s.agency), k.subject, k.valid_until, k.chain <> '{}'
    from key_certificate k
    join signing_key s on s.kid = k.kid and s.active
    left join endpoint e on e.id = s.endpoint
    where k.active
) u
left join revocation r on r.certificate = u.sha256
left join revocation_question q on q.certificate = u.sha256
where u.not_after <= now() + make_interval(days => $1)
   or (u.asked and (coalesce(r.status, 'unknown') <> 'good' or r.fresh_until < now()))
order by u.not_after, u.sha256 limit 1000

-- name: put_warning
insert into expiry_warning (certificate, days) values ($1, $2) on conflict do nothing returning days

-- -- evidence ------------------------------------------------------------------------------------

-- name: jwk
select jwk from signing_key where kid = $1

-- name: vouched_jwk
-- Of a key that the linked hub called $2 vouches for.
select k.jwk from link_key k join endpoint e on e.id = k.endpoint where k.name = $1 and e.name = $2
