-- Links through the hub's own interface, at either end; and what is said beside a message in mailboxes.

alter table link add kind text not null default 'axis' check (kind in ('axis', 'native'));

-- Of an agency beyond a native link: which of the peer's systems speaks for it, in the peer's own words.
alter table agency add system text not null default '';

-- An endpoint that is another hub, which comes to this one as a native link.
create table linked_hub (
    endpoint  int primary key,
    branch    text[] not null check (cardinality(branch) > 0), -- what it may speak for: these units, and all below
    approval  boolean not null,             -- whether its new keys wait for an operator
    -- What it last said of itself.
    name      text not null default '',
    hub_keys  text not null default '[]',   -- JWKs
    told_at   timestamptz,
    refused   text not null default '',     -- what of that was not taken, and why
    revision  bigint not null
);
create index linked_hub_revision on linked_hub (revision);

-- Keys of signers beyond a native link, at either end, as its peer vouches for them. They count for messages that
-- come over that link and for nothing else. Of an agency, or of one of the peer's systems (`agency.system`).
create table link_key (
    endpoint   int not null,
    name       text not null,               -- as a JWS names it: `kid`, or "x5t:" and a thumbprint
    jwk        text not null,
    agency     text,
    system     text not null default '',
    not_before timestamptz,
    not_after  timestamptz,
    present    boolean not null,            -- whether the peer still vouches for it
    approved   boolean,                     -- null: waits for an operator
    at         timestamptz not null default now(),
    revision   bigint not null,
    primary key (endpoint, name)
);
create index link_key_revision on link_key (revision);

-- Through which hubs a message came (thumbprints of their keys), where a native link said so.
create table hop (
    message uuid primary key,
    hops    text[] not null
);

-- What the peer gave for a message: its receipt. And the ways from a peer's name to the hub's own, and back.
alter table link_transfer add receipt text;
create index link_transfer_peer on link_transfer (endpoint, peer_id);
create index link_fetch_message on link_fetch (message, endpoint) where message is not null;

-- Documents that repeat an earlier one, by its id or by number, symbol and issuing body (`catalogue`).
create table repeated (
    message uuid primary key
);
