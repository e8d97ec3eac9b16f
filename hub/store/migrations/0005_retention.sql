-- Old months leave (hub/retention.py), and what only they named leaves the blob store after them.

-- Blobs that nothing named when they were put here. They are deleted an hour later at the earliest, if still
-- nothing does: a message that is being taken in may name one at this moment.
create table blob_garbage (
    sha256 bytea primary key,
    since  timestamptz not null default now()
);

-- Messages too large for a row: few, but each has to be found by its blob.
create index message_blob on message (digest) where body is null;
