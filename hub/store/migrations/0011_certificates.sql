-- Certificates: whom the hub trusts, whose key is in which certificate, and what is known of revocation.
-- Nothing here is ever deleted: a proof made years later must find the certificates and the very answers that
-- were applied when a message was accepted (hub/evidence/signers.py).

create table trust_anchor (
    sha256     bytea primary key,           -- of the certificate's DER, as everywhere here
    revocation text check (revocation in ('soft', 'hard', 'off')),  -- null: as --revocation says
    crl_url    text not null default '',    -- where the list of what it issued itself is, if its certificates do not say
    ocsp_url   text not null default '',    -- or where to ask about them
    not_before timestamptz not null,
    not_after  timestamptz not null,
    subject    text not null,
    added_at   timestamptz not null default now(),
    active     boolean not null default true,
    revision   bigint not null
);
create index trust_anchor_revision on trust_anchor (revision);

-- Every certificate that the hub was ever given: anchors, authorities between, signers.
create table certificate (
    sha256   bytea primary key,
    der      bytea not null,
    added_at timestamptz not null default now()
);

-- By which certificates a signer's led to an anchor, since when: signer first, anchor last.
create table certificate_chain (
    leaf  bytea not null,
    since timestamptz not null,
    chain bytea[] not null,
    primary key (leaf, since)
);

-- In which certificates a key came: several at a time, as renewing one keeps the key. `chained` once a chain was
-- found: then the certificate is worth nothing without one. Otherwise it is pinned, as a key alone is.
create table key_certificate (
    kid         text not null,
    certificate bytea not null,
    chained     boolean not null default false,
    chain       bytea[] not null default '{}',          -- the present one; empty: none leads to an anchor
    valid_from  timestamptz not null,                   -- when all certificates of the chain are valid
    valid_until timestamptz not null,
    subject     text not null,
    active      boolean not null default true,
    revision    bigint not null,
    primary key (kid, certificate)
);
create index key_certificate_revision on key_certificate (revision);

-- Answers of authorities, as they came.
create table revocation_answer (
    sha256     bytea primary key,
    kind       text not null check (kind in ('crl', 'ocsp')),
    url        text not null,
    fetched_at timestamptz not null,
    der        bytea not null
);

-- What is known of each certificate now.
create table revocation (
    certificate bytea primary key,
    status      text not null check (status in ('good', 'revoked', 'unknown')),
    reason      text not null default '',   -- of a revocation, after RFC 5280
    revoked_at  timestamptz,
    answer      bytea,                      -- the answer that says so
    answered_at timestamptz,                -- its thisUpdate
    fresh_until timestamptz,                -- its nextUpdate
    revision    bigint not null
);
create index revocation_revision on revocation (revision);

-- How asking goes, apart from what is known, since it changes with every question.
create table revocation_question (
    certificate bytea primary key,
    asked_at    timestamptz not null,
    answered_at timestamptz,                -- when an answer last came that could be used
    failures    int not null default 0,     -- in a row
    failure     text not null default ''
) with (fillfactor = 50);

-- Which warnings have been given, so that each is given once: `days` before the end.
create table expiry_warning (
    certificate bytea not null,
    days        int not null,
    at          timestamptz not null default now(),
    primary key (certificate, days)
);
