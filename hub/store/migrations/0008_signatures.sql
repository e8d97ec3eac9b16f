-- Package signatures (XMLDSig) of edXML messages: what they are to the hub, and what was found.

alter table endpoint
    add column edxml_signatures text not null default 'ignore'
        check (edxml_signatures in ('ignore', 'record', 'require')),
    add column edxml_pins text[] not null default '{}', -- SHA-256 of certificates, lower-case hex: required are theirs
    add column edxml_any_certificate boolean not null default false, -- or, said by an operator, anybody's
    add check (edxml_signatures <> 'require' or edxml_any_certificate or cardinality(edxml_pins) > 0);

-- One of a message's package signatures, as it was found when the message came. Rows are written with their message.
create table package_signature (
    message     uuid not null,
    place       smallint not null,  -- among the message's signatures, from 0
    status      text not null,      -- protocol.edxml.xmldsig.Verdict
    reason      text not null,
    subject     text not null,      -- of the certificate in it; '' where none was looked at
    fingerprint text not null,      -- SHA-256 of that, lower-case hex
    whole       boolean not null,   -- covers the whole message
    weak        boolean not null,   -- rests on SHA-1 or a short key
    primary key (message, place)
);
