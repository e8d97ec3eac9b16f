-- Signatures in PDF attachments: what they are to the hub, what was found, and what is still to be looked at.

alter table endpoint
    add column pdf_signatures text not null default 'ignore'
        check (pdf_signatures in ('ignore', 'record', 'require')),
    add column pdf_countersigned boolean not null default false; -- content may change if a later signature covers it

-- What was found of a PDF, by its bytes and by whom the hub trusted then. Only lately found results are used again:
-- certificates end. What was found of a message's PDFs is in its events (table `event`), for as long as it lives.
create table pdf_result (
    sha256     bytea not null,
    trust      bytea not null,      -- SHA-256 over trust anchors and revocation lists
    checked_at timestamptz not null,
    result     text not null,       -- hub.pdf.result.PdfResult, as JSON
    primary key (sha256, trust)
);
create index pdf_result_age on pdf_result (checked_at);

-- Messages whose PDFs are to be checked, or whose results are to be recorded. A row comes with its message, in the
-- same transaction, and goes when the events are on disk. Whoever works on one puts `due` ahead; should he die, it
-- comes round again.
create table pdf_queue (
    message  uuid primary key,
    endpoint int not null,          -- who sent it
    since    timestamptz not null default now(),
    due      timestamptz not null default now(),
    tries    int not null default 0
) with (fillfactor = 50);
create index pdf_queue_turn on pdf_queue (endpoint, due);
