-- For the stream door and for messages to hundreds of endpoints.

-- Routes too long to stand in every message that has them: `message.route` is then '@' and the id.
-- Written before the messages that name them; never changed.
create table shared_route (
    id    text primary key,                 -- hex of the SHA-256 of `route`
    route text not null
);

-- Its arguments change with what follows; 0006 makes it again.
drop function commit_messages(
    uuid, timestamptz, bytea, text, uuid[], int[], text[], text[], smallint[], smallint[], bytea[], bigint[],
    timestamptz[], text[], bytea[], int[], text[], int[], int[], int[], bytea[], uuid[], int[], bytea[], text[],
    int[], text[]);
