-- How the witnesses of the log do (hub/evidence/witnessing.py): one row for each that was ever configured. What they
-- signed is in `checkpoint_signature`.
create table witness (
    name          text primary key,
    vkey          text not null,
    size          bigint,                   -- of the newest checkpoint that it signed
    at            timestamptz,              -- when that answer came
    clock_seconds float8,                   -- how far its clock was ahead of the hub's then
    failures      int not null default 0,   -- in a row
    error_at      timestamptz,
    error         text,                     -- the last one
    refused       text                      -- why it says that the log misbehaves, while it does
);
