-- For systems that speak the national axis's interface, and for states of documents.

-- What a message is: 0 document, 1 status, 2 notice of the hub. What it does: 0 new, 1 recall, 2 update,
-- 3 replacement. And the document it is or speaks of, under the name that the parties have for it: the edXML
-- DocumentId, or a native document's id; of a notice, the hub's id of the message.
alter table message
    add kind        smallint not null default 0,
    add business    smallint not null default 0,
    add document_id text collate "C";
create index message_document on message (document_id) where document_id is not null;
update message set kind = 2 where format = 2;

-- Documents and statuses are asked for apart. Statuses have an index of their own, so that they are found behind
-- any number of documents; a document goes to hundreds of mailboxes and pays for none.
alter table inbox add kind smallint not null default 0;
create index inbox_status on inbox (endpoint, lane, seq) where kind = 1;
update inbox i set kind = 2 from message m where m.id = i.message and m.format = 2;

alter table agency add mail text not null default '';

create table axis_system (
    system_id  text primary key,
    endpoint   int not null,
    utc_hours  smallint not null default 7, -- how far its clock is ahead of UTC
    secret     bytea not null,              -- sealed (hub/directory/vault.py)
    previous   bytea,                       -- the one before, which goes on working until the next
    active     boolean not null default true,
    created_at timestamptz not null default now(),
    revision   bigint not null
);
create index axis_system_revision on axis_system (revision);
create index axis_system_endpoint on axis_system (endpoint);

-- What systems asked to be changed in the directory. `signature` is that of the signed request.
create table axis_request (
    id         bigint generated always as identity primary key,
    system_id  text not null,
    endpoint   int not null,
    kind       text not null check (kind in ('register', 'delete')),
    code       text not null,
    name       text not null,
    parent     text not null,
    mail       text not null,
    mobile     text not null,
    fax        text not null,
    signature  bytea not null unique,
    state      text not null default 'waiting' check (state in ('waiting', 'approved', 'rejected', 'superseded')),
    at         timestamptz not null default now(),
    decided_at timestamptz
);
create index axis_request_waiting on axis_request (system_id, code) where state = 'waiting';

-- That a system said it is at work on a document. Gone when its delivery has ended.
create table axis_note (
    endpoint int not null,
    message  uuid not null,
    at       timestamptz not null default now(),
    primary key (endpoint, message)
);
create index axis_note_message on axis_note (message);
