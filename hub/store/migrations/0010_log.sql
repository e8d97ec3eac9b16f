-- The transparency log: every event of every sealed batch is an entry, in the order in which one integrator at a
-- time takes the batches (hub/evidence/integrate.py). Nothing here is ever changed or leaves with old months, but for the
-- right edge of the tree and for checkpoints that nobody signed along.

-- Batches that wait for their place in the log. A trigger puts them there: whatever seals a batch, its events get
-- into the log.
create table log_pending (
    batch uuid primary key
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

create function log_batch_later() returns trigger language plpgsql as $$
begin
    insert into log_pending values (new.id);
    return null;
end $$;
create trigger log_batch_later after insert on batch for each row execute function log_batch_later();

insert into log_pending select id from batch;

-- Where a batch's events are: the k-th is the log's entry `first` + k. Kept for good: a receipt names its batch.
create table log_batch (
    batch uuid primary key,
    first bigint not null
);
-- The other way round, for an auditor who picks entries: which batch holds an entry.
create index log_batch_first on log_batch (first);

-- The tree. Level -1 holds entries, from which level 0 is computed again; higher levels hold roots of full tiles of
-- the level below. Up to 256 hashes a row; the last row of a level grows until it is full.
create table log_tile (
    level  smallint not null,
    place  bigint not null,
    hashes bytea not null,
    primary key (level, place)
);
alter table log_tile alter column hashes set storage external;    -- hashes do not compress

create table checkpoint (
    size bigint primary key,
    at   timestamptz not null,
    root bytea not null,
    note text not null                      -- with the log's own signature
);

-- Lines by which witnesses signed along.
create table checkpoint_signature (
    size bigint not null,
    name text not null,
    line text not null,
    at   timestamptz not null,              -- as the witness states it
    primary key (size, name)
);

-- RFC 3161 tokens over the text of a checkpoint.
create table checkpoint_timestamp (
    size      bigint not null,
    authority text not null,
    token     bytea not null,
    at        timestamptz not null,         -- as the authority states it
    primary key (size, authority)
);

-- Under what name and key the log is signed; the newest row counts. The name goes with the tree: it stays when the
-- hub is called differently. Old keys stay for those who verify old checkpoints.
create table log_identity (
    vkey   text primary key,                -- name+id+base64 (c2sp.org/signed-note)
    origin text not null,
    since  timestamptz not null default clock_timestamp()
);
