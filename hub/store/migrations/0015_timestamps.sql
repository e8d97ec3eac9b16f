-- When each time-stamping authority may be asked again. Whoever moves `next_at` on asks: so one process does, none is
-- waited for, and no connection is held while an authority takes its time (docs/adr/0051).
create table timestamp_turn (
    authority text primary key,
    next_at   timestamptz not null,
    failures  int not null default 0,       -- in a row
    error     text                          -- of the last one, for the operator
);
