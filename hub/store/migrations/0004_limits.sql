-- Limits of an endpoint's own. Null: the hub's default. 0: none.

alter table endpoint
    add column rate_messages double precision check (rate_messages >= 0),   -- submitted in a second
    add column rate_bytes    double precision check (rate_bytes >= 0);      -- of messages and attachments
