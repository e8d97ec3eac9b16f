"""A bounded campaign against everything that reads edXML, and what longer ones found.

Good messages (made in every dialect, and real ones) are damaged, mostly by whole elements: cut, doubled, moved,
renamed. Whatever is taken in must be read by every part alike; `tests.support.edxml_damage.hold` says what that
means. To run a longer one: `EDXML_FUZZ=100000 python -m pytest tests/protocol/test_edxml_fuzz.py --timeout 0`.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from protocol.edxml.reader import read_message
from protocol.edxml.trace import append_trace
from protocol.edxml.writer import write_message
from tests.support.edxml_damage import TRACE, damaged, hold, seeds
from tests.support.edxml_messages import DOCUMENT, document, status, write

ROUNDS = int(os.environ.get("EDXML_FUZZ", "1500"))


def test_whatever_is_taken_in_is_understood_in_one_way() -> None:
    good, ends = seeds(), Counter[str]()
    for number in range(ROUNDS):
        chance = random.Random(number)
        data = damaged(chance.choice(good), chance)
        try:
            ends[hold(data)] += 1
        except Exception as error:
            error.add_note(f"round {number}: {data!r}")
            raise
    assert ends["read"] > ROUNDS // 5, "too much was refused to say anything"
    assert ends["refused"] > ROUNDS // 5


@pytest.mark.parametrize("seed", seeds(), ids=range(len(seeds())))
def test_it_holds_of_what_is_not_damaged(seed: bytes) -> None:
    assert hold(seed) == "read"


# -- found by longer campaigns ----------------------------------------------------------------------


def test_an_empty_list_of_traces_is_opened() -> None:
    """expat gives the end of `<a/>` a place of its own, behind the tag: the trace went beside the list."""
    data = write(status()).replace(b"<edXML:edXMLHeader>", b"<edXML:TraceHeaderList/><edXML:edXMLHeader>")
    after = b"".join(append_trace(data, TRACE))
    assert b"</edXML:TraceHeader></edXML:TraceHeaderList><edXML:edXMLHeader>" in after
    assert hold(data) == "read"


def test_a_list_of_traces_behind_the_header_is_the_one() -> None:
    """A second list was put into the header, and the trace became the first."""
    begin = DOCUMENT.index(b"<edXML:TraceHeaderList>")
    end = DOCUMENT.index(b"</edXML:TraceHeaderList>") + len(b"</edXML:TraceHeaderList>")
    moved = DOCUMENT[:begin] + DOCUMENT[end:]
    moved = moved.replace(b"<edXML:edXMLBody>", b"<edXML:edXMLBody>" + DOCUMENT[begin:end])
    after = read_message(b"".join(append_trace(moved, TRACE))).message.trace
    assert after is not None
    assert after.trace_header[-1] == TRACE
    assert hold(moved) == "read"


@pytest.mark.parametrize(
    "name", [b"edXMLManifest", b"TraceHeaderList", b"Signature", b"MessageHeader", b"StatusCode"]
)
def test_what_stands_among_the_attachments_stays_there(name: bytes) -> None:
    """Written at another place, it was taken for what it is called."""
    data = DOCUMENT.replace(b"<AttachmentEncoded>", b"<AttachmentEncoded><%b><a/></%b>" % (name, name))
    message = read_message(data).message
    assert len(message.attachment_extras) == 1
    assert read_message(b"".join(write_message(message))).message == message
    assert hold(data) == "read"


@pytest.mark.parametrize("dialect", ["e-doc", "go.vn"])
def test_a_signature_of_an_old_dialect_stays_one(dialect: str) -> None:
    """It was written in its old namespace, where nobody takes it for a signature."""
    message = read_message(write(document(), dialect)).message
    assert len(message.signatures) == 1
    assert read_message(b"".join(write_message(message))).message.signatures == message.signatures


def test_elements_in_a_content_that_nobody_asked_for() -> None:
    """What routing took in could not be read, though its files were not wanted."""
    data = DOCUMENT.replace(b"UEsDBBQA", b"<x/>", 1)
    assert read_message(data).message == read_message(DOCUMENT).message
    assert hold(data) == "not base64"
