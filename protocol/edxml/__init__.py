"""edXML (QCVN 102:2016): documents (văn bản) and statuses, in every dialect seen on the axis.

`read` gives what is needed to route and describe a message, and is what the hub runs on every one. It alters no
byte: a message is kept and passed on as it came. What cannot be routed is refused; what is merely ragged is
tolerated, and named in `Header.warnings`. Around it:

| to | use |
| --- | --- |
| read a message whole, and its attachments as they go by | `reader.read_message`, `reader.MessageReader` |
| know what a message holds | `model.Message`; `values` says what its texts mean |
| write one in the strict form | `writer.write_message` |
| say that a system relayed it | `trace.append_trace`, `trace.TraceAppender` |
| list what is wrong with it, field by field | `check.check` |
| open or make the zip that a file is carried in; name the file | `wrapping`, `names` |
| verify its package signature | `xmldsig.verify`, `xmldsig.judge` |
| turn it into a native document, or the reverse | `convert.to_native`, `convert.from_native` |

For `read`, bytes become texts in `parser`, texts a header in `header`. `docs/edxml.md` lists every element and
dialect with its tests.

Subtle parts:

* The parser is expat, not lxml: lxml keeps every element name that it ever met until its thread ends, so that
  20 MB of made-up names leave 35 MB behind, and it lets unbound prefixes pass. expat forgets, and drops
  unwanted text before it becomes a string (docs/adr/0007).
* The prolog is searched for a DOCTYPE before the parser sees a byte, and the parser's own handler refuses
  one all the same: entities are never declared, so never expanded or fetched.
* While it lives, expat keeps each distinct name and each unfinished token; releases before 2.6 scan such
  a token anew with every chunk. Hence the limits on names, tokens and markup (all but the attachments'
  text). 16 MiB of distinct attributes would take 215 MiB and two seconds.
* Elements are known by namespace and path, never by prefix or order. The package signature, too, holds
  elements named `Reference`, often in edXML's own namespace. Envelope, header and body are transparent,
  for some dialects leave them out.
* What addresses a message, or says what is to be done with it, may stand in it only once: of two `From`, the
  recipient's system might believe the other. When a field that only describes is repeated, the first counts.
* Comments and processing instructions are ignored, and do not split the field that they stand in. A field
  that holds elements is refused, since readers differ in what its text is.
* Dates are Vietnam's unless they say otherwise. They are returned in ISO 8601.
"""

from __future__ import annotations

from typing import BinaryIO

from protocol.edxml.header import MAX_DOCUMENT_ID, Header, Judge, Party, Reference, Response
from protocol.edxml.parser import (
    CHUNK,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_FIELD,
    MAX_FIELDS,
    MAX_MARKUP,
    MAX_NAMES,
    MAX_PROLOG,
    MAX_TOKEN,
    NAMESPACE,
    OLD_NAMESPACES,
    gather,
)

__all__ = [
    "CHUNK",
    "MAX_DEPTH",
    "MAX_DOCUMENT_ID",
    "MAX_ELEMENTS",
    "MAX_FIELD",
    "MAX_FIELDS",
    "MAX_MARKUP",
    "MAX_NAMES",
    "MAX_PROLOG",
    "MAX_TOKEN",
    "NAMESPACE",
    "OLD_NAMESPACES",
    "Header",
    "Party",
    "Reference",
    "Response",
    "read",
]


def read(source: bytes | BinaryIO, whole: bool = False) -> Header:
    """The header of the edXML message in `source`.

    Reading ends where the attachments begin, and what follows may be broken. With `whole` the message is
    checked to its last byte, so that one that breaks off in an attachment is refused. Memory is bounded
    either way.

    Raises `Problem` bad-xml, or bad-edxml with the fields at fault as (path, reason). Paths begin with N
    (missing), R (too long), M (wrong value) or T (wrong form), as in the error lists of the axis.
    """
    return Judge(gather(source, whole)).header()
