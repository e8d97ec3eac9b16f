-- Other hubs and the national axis: who they are, how it goes with them, what went over and what came.

create table link (
    endpoint      int primary key,           -- in whose mailbox lies what is to go there
    url           text not null,
    system_id     text not null,
    secret        bytea not null,            -- sealed (hub/directory/vault.py)
    utc_hours     smallint not null default 7,
    branch        text[] not null check (cardinality(branch) > 0), -- the first is the hub's own agency
    is_default    boolean not null default false,
    poll_seconds  float8 not null,
    retry_seconds float8 not null,           -- the longest pause after failures
    sync_seconds  float8 not null,           -- how often the directory is fetched; 0: only when asked
    active        boolean not null default true,
    created_at    timestamptz not null default now(),
    revision      bigint not null
);
create index link_revision on link (revision);
create unique index link_default on link (is_default) where is_default;

-- How it goes, as its courier last said it.
create table link_state (
    endpoint        int primary key,
    last_success_at timestamptz,
    last_error_at   timestamptz,
    last_error      text,
    failures        int not null default 0,  -- in a row
    retry_at        timestamptz,             -- when it goes on after those
    sent            bigint not null default 0,
    fetched         bigint not null default 0,
    refused_there   bigint not null default 0,
    refused_here    bigint not null default 0,
    synced_at       timestamptz,
    synced          int
) with (fillfactor = 50);

-- A message that went over, or failed to. `peer_id` is what the peer calls it: that it has it.
create table link_transfer (
    endpoint   int not null,
    message    uuid not null,
    at         timestamptz not null,
    tries      int not null,
    peer_id    text,
    error      text,
    refused    boolean not null default false, -- for good
    primary key (endpoint, message)
) with (fillfactor = 80);
create index link_transfer_at on link_transfer (at);
create index link_transfer_failed on link_transfer (endpoint, at) where error is not null;

-- What came from a peer, under its name for it. `message` is null where it was refused, or was this hub's own.
create table link_fetch (
    endpoint int not null,
    peer_id  text not null,
    at       timestamptz not null,
    message  uuid,
    error    text,
    primary key (endpoint, peer_id)
);
create index link_fetch_at on link_fetch (at);

-- What an operator asks of a link's courier.
create table link_order (
    id       bigint generated always as identity primary key,
    endpoint int not null,
    what     text not null check (what in ('resend', 'sync')),
    message  uuid                             -- of resend: one; all that waits where it is null
);
