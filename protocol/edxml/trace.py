"""Append a TraceHeader to a message on its way, and change no other byte.

Every system that relays an edXML message adds who it is and when. The hub does so only to what it hands to
another axis; what it keeps stays as it came. A signature over the whole message cannot survive that: such is
the format.

Subtle parts:

* The new TraceHeader goes behind the last one, so before `Bussiness`, with the prefix that its list has. A
  message without a list gets one at the end of its header. A status without a list gets none: in every one
  that was seen the header holds the MessageHeader alone.
* Which TraceHeader is the last is known only at the end of their list; that there is no list, only where the
  attachments begin. What stands between is held back: markup, of which the routing parser allows 8 MiB.
* Once the TraceHeader is in, bytes are passed on without a look.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO
from xml.parsers import expat

from protocol.edxml.binding import Binder
from protocol.edxml.header import Judge
from protocol.edxml.model import TraceHeader, TraceHeaderList
from protocol.edxml.parser import CHUNK, Pieces, Reader, check_prolog
from protocol.edxml.values import written_time
from protocol.edxml.writer import Writer

_NAME = re.compile(rb"<(([^\s:/>]*:)?[^\s/>]*)")
_TAG = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*>""")


def trace_header(agency: str, instant: datetime) -> TraceHeader:
    """The trace of a system whose code is `agency`, at `instant`, which has a zone."""
    return TraceHeader(organ_id=agency, timestamp=written_time(instant))


def append_trace(source: bytes | BinaryIO, trace: TraceHeader) -> Iterator[bytes]:
    """The message in `source` with `trace` behind its TraceHeaders, in pieces; see `TraceAppender`."""
    appender = TraceAppender(trace)
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    while chunk := stream.read(CHUNK):
        if piece := appender.feed(chunk):
            yield piece
    yield appender.close()


class TraceAppender:
    """Takes a message in pieces of any size, and gives it back with one more TraceHeader."""

    def __init__(self, trace: TraceHeader) -> None:
        self._trace = trace
        self._pieces = Pieces()
        self._held = b""
        self._start = 0  # where `_held` begins in the message, as all offsets below count from its first byte
        self._hold: int | None = None  # from where on bytes are held
        self._cut: tuple[int, int, bytes] | None = None  # what to replace, and by what
        self._list_at = self._header_depth = -1
        self._point: int | None = None
        self._end_of_header: int | None = None
        self._prefix = ""
        self._namespace: str | None = None  # to be declared for a new list
        self._roles: list[str] = []
        self._routing: Reader | None = None

    def feed(self, data: bytes) -> bytes:
        """What of the message can go on, perhaps nothing. Raises `Problem` as reading it does."""
        if self._passing:
            return data
        taken = [self._take(chunk, final=False) for chunk in self._pieces.add(data)]
        return b"".join([*taken, self._pieces.rest()] if self._passing else taken)

    def close(self) -> bytes:
        """The rest. Raises `Problem` as `feed` does."""
        return b"" if self._passing else self._take(self._pieces.rest(), final=True)

    @property
    def _passing(self) -> bool:
        return self._cut is not None

    def _take(self, chunk: bytes, final: bool) -> bytes:
        if self._passing:
            return chunk
        if self._routing is None:
            check_prolog(chunk)
            self._routing = Reader(whole=True)
            self._parser = expat.ParserCreate("UTF-8", " ")
            self._parser.StartElementHandler = self._open
            self._parser.EndElementHandler = self._close
        self._held += chunk
        try:
            self._routing.feed(chunk, final)
            self._parser.Parse(chunk, final)
            # expat's position is now that of the first thing it could not finish.
            safe = self._parser.CurrentByteIndex if self._hold is None else self._hold
        except BaseException:
            self._release()
            raise
        if self._passing or final:
            self._release()
            begin, end, new = self._cut or (self._start, self._start, b"")
            ready = self._held[: begin - self._start] + new + self._held[end - self._start :]
            self._held = b""
            return ready
        ready, self._held = self._held[: safe - self._start], self._held[safe - self._start :]
        self._start = safe
        return ready

    def _release(self) -> None:
        """Let go of the parsers, which hold this object."""
        assert self._routing is not None
        del self._routing.parser, self._parser

    def _open(self, name: str, attributes: dict[str, str]) -> None:
        at, role = self._parser.CurrentByteIndex, ""
        if not self._roles:
            assert self._routing is not None
            self._binder = Binder(self._routing.old)
            role = "frame"
        elif self._roles[-1] == "frame":
            role = self._binder.place(name) or ""
            if role == "trace":
                self._end_of_header = None
                self._list_at = self._hold = at
                self._prefix = self._prefix_at(at)
            elif role == "header":
                self._header_depth = len(self._roles)
                self._prefix = self._prefix_at(at)
                if b"xmlns" in self._match(_TAG, at)[0]:  # then its prefix may mean nothing behind it
                    self._namespace = name.rpartition(" ")[0]
            elif role == "attachments":
                self._without_list()
        elif self._roles[-1] == "trace":
            if self._binder.is_trace_header(name):
                self._point = self._hold = None
            elif self._point is None:
                self._point = self._hold = at
        self._roles.append(role)

    def _close(self, name: str) -> None:
        role = self._roles.pop()
        at = self._parser.CurrentByteIndex
        if role == "trace":
            new = self._written("TraceHeader", self._trace)
            start = self._list_at
            tag = self._match(_TAG, start)[0] if self._point is None and self._hold == start else b""
            if tag.endswith(b"/>"):  # <TraceHeaderList/>
                opened = tag[:-2].rstrip() + b">" + new + b"</" + self._match(_NAME, start)[1] + b">"
                self._replace(start, start + len(tag), opened)
            else:
                point = at if self._point is None else self._point
                self._replace(point, point, new)
        elif role == "frame" and len(self._roles) == self._header_depth - 1:
            assert self._routing is not None
            if Judge(self._routing).is_status():
                self._replace(at, at, b"")
            else:
                self._end_of_header = self._hold = at
        if not self._roles:
            self._without_list()

    def _without_list(self) -> None:
        """No list has come until here, nor will one."""
        if self._cut is None and self._end_of_header is not None:
            self._replace(self._end_of_header, self._end_of_header, self._new_list())

    def _replace(self, begin: int, end: int, new: bytes) -> None:
        self._cut = begin, end, new
        self._parser.StartElementHandler = self._parser.EndElementHandler = None

    def _match(self, pattern: re.Pattern[bytes], at: int) -> re.Match[bytes]:
        found = pattern.match(self._held, at - self._start)
        assert found is not None  # expat has just reported a tag here
        return found

    def _prefix_at(self, at: int) -> str:
        return (self._match(_NAME, at)[2] or b"").decode()

    def _new_list(self) -> bytes:
        new = self._written("TraceHeaderList", TraceHeaderList(trace_header=(self._trace,)))
        if self._namespace is None:
            return new
        declared = f' xmlns{":" * bool(self._prefix)}{self._prefix.rstrip(":")}="{self._namespace}"'
        return new.replace(b">", declared.encode() + b">", 1)

    def _written(self, name: str, part: TraceHeader | TraceHeaderList) -> bytes:
        return Writer(status=False).part(name, part, self._prefix).encode()
