-- Events of messages beside their acceptance, rejection and the ends of their deliveries.

-- Text as hashed, like those. Partitioned as the messages are, with which they leave.
create table event (
    message  uuid not null,
    batch    uuid not null,
    leaf     int not null,
    at       timestamptz not null,
    kind     text not null,                 -- protocol.evidence.EventKind
    endpoint int,                           -- whose delivery it concerns; null: the message as a whole
    event    text not null,
    primary key (message, batch, leaf)
) partition by range (message);

-- What leaves with a month, in the order of dropping.
create function monthly_tables() returns text[] language sql immutable as $$
    select array['inbox', 'progress', 'event', 'message', 'rejection', 'batch']
$$;

-- As before, over those. What counts microseconds is partitioned by them, the rest by the time in its UUIDs.
create or replace function ensure_partitions(months int) returns void language plpgsql
set timezone = 'UTC' set lock_timeout = '5s' as $$
declare
    this  timestamptz := date_trunc('month', now());
    first timestamptz;
    next  timestamptz;
    name  text;
    part  text;
    low   text;
    high  text;
begin
    perform pg_advisory_xact_lock(7002);
    for i in -1..months loop
        first := this + make_interval(months => i);
        next := this + make_interval(months => i + 1);
        foreach name in array monthly_tables() loop
            part := name || to_char(first, '_YYYYMM');
            if to_regclass(part) is not null then
                continue;
            end if;
            if pg_get_partkeydef(name::regclass) like '%seq)' then
                low := seq_floor(first)::text;
                high := seq_floor(next)::text;
            else
                low := quote_literal(uuid_floor(first));
                high := quote_literal(uuid_floor(next));
            end if;
            execute format('create table %I (like %I including all)', part, name);
            if name = 'message' then
                -- Rows under 8 KB stay in their page: a 2 KiB document is read with one look.
                execute format('alter table %I set (toast_tuple_target = 8160)', part);
            end if;
            execute format('alter table %I attach partition %I for values from (%s) to (%s)',
                           name, part, low, high);
        end loop;
    end loop;
end $$;

select ensure_partitions(2);

-- Commits a sealed batch of such events.
create function commit_events(
    p_batch uuid, p_at timestamptz, p_leaves bytea, p_seal text,
    p_messages uuid[], p_kinds text[], p_endpoints int[], p_events text[]
) returns void language plpgsql as $$
begin
    insert into event (message, batch, leaf, at, kind, endpoint, event)
    select message, p_batch, place - 1, p_at, kind, endpoint, text
    from unnest(p_messages, p_kinds, p_endpoints, p_events) with ordinality e(message, kind, endpoint, text, place);
    insert into batch values (p_batch, p_at, 0, p_leaves, p_seal);
end $$;
