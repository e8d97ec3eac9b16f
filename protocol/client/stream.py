"""The stream, as an agency's system uses it: submit and receive on one connection that mends itself.

    async with hub.stream() as stream:
        sent = await stream.send(document)
        async for entry in stream.mail():
            await stream.acknowledge(entry)

Any number of callers may submit at once; each awaits its own outcome, and what they submit in one turn of
the event loop goes out in one frame. When the connection breaks, another is made after a jittered pause;
what was not answered is sent again, and mail goes on after the last entry that came. When the hub asks for
it (`drain`), another connection is made at once and the old one ends when its answers have come.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from protocol.client import transport
from protocol.client.connection import Connection
from protocol.client.model import ClientError, Entry, Sent, read_entry, read_outcome
from protocol.client.signing import Ledger
from protocol.client.transport import Transport
from protocol.client.work import (
    LANES,
    START,
    Acking,
    Submission,
    Tally,
    check_size,
    checked,
    read_cursor,
    seq_of,
    told,
    write_cursor,
)
from protocol.manifest import Manifest
from protocol.message import Document
from protocol.problems import Problem
from protocol.reasons import RefusalCode
from protocol.stream import (
    MAX_ACKS,
    Ack,
    Credit,
    CursorText,
    Hello,
    Mail,
    Members,
    Refusal,
    Seq,
    Session,
    StreamError,
    body_size,
)

HEARTBEAT_SECONDS = 30.0
FLEETING_SECONDS = 0.1
"""A connection that was asked to drain so soon is followed by another only after a pause."""
CLOSE_SECONDS = 10.0
"""How long leaving the block waits for the answers to what is under way."""


class Stream:
    """A stream to a hub (`HubClient.stream`), to be used in an ``async with`` block.

    When the hub refuses the stream for good, or cannot be reached for the client's `retry_seconds`, whoever
    waits for anything gets that `Problem`, and so does everybody who asks for something later.
    """

    def __init__(
        self,
        connections: Transport,
        sign: Callable[[Document], bytes],
        sign_together: Callable[[Sequence[Document]], Manifest],
        after: str,
        messages: int,
        size: int,
        ledger: Ledger | None = None,
    ) -> None:
        """`ledger`: acknowledgements are signed."""
        if messages < 1 or size < 1:
            raise ClientError("a stream needs room for at least one message and one byte of mail")
        self.queue: deque[Submission] = deque()
        self.acks: deque[Acking] = deque()
        self._ledger = ledger
        self._transport = connections
        self._sign = sign
        self._sign_together = sign_together
        self._window_messages = messages
        self._window_bytes = size
        self._received = list(read_cursor(checked(after, CursorText)))
        """How far mail has come in, by lane."""
        self._given = list(self._received)
        self._inbox: deque[Members] = deque()
        self._inbox_bytes = 0
        self._wants_mail = False
        self._arrived = asyncio.Event()
        self._tally = Tally(not any(self._received))
        self._current: Connection | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._closing = False
        self._over: Exception | None = None
        """Why the stream does nothing any more."""

    async def __aenter__(self) -> Self:
        """Open the stream. Raises `Problem` when the hub refuses it, or cannot be reached."""
        if self._keeper is not None:
            raise ClientError("a stream is opened once; make another with `HubClient.stream`")
        self._keeper = asyncio.create_task(self._keep())
        try:
            await self._opened.wait()
            if self._over is not None:
                raise self._over
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        try:
            if self._current is not None and self._over is None:
                self._current.finish(hand_over=False)
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._current.ended.wait()
        except TimeoutError:
            pass
        finally:
            await self._stop()

    async def _stop(self) -> None:
        self._end(self._over or ClientError("the stream was closed before the hub answered"))
        tasks = [task for task in (self._keeper, *self._running) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- sending --------------------------------------------------------------------------------

    async def send(self, document: Document) -> Sent:
        """Sign a document and submit it. Attachments must have been uploaded. Raises `Problem`."""
        return await self.submit(self._sign(document))

    async def submit(self, message: bytes) -> Sent:
        """Submit a compact JWS; returns when it is on disk. Raises `Problem`."""
        text = message.decode("ascii", "replace")
        check_size((text,))
        (outcome,) = await self._put(Submission(*self._waiter(), message=text))
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def send_together(self, documents: Sequence[Document]) -> list[Sent | Problem]:
        """Sign up to 1,000 documents with one signature and submit them; each can still be proven alone.

        The outcomes stand in their order. Raises `Problem` when all of them are refused together.
        """
        return await self.submit_manifest(self._sign_together(documents))

    async def submit_manifest(self, manifest: Manifest) -> list[Sent | Problem]:
        """Submit documents that were signed together. Outcomes and `Problem` as of `send_together`."""
        documents = tuple(document.decode("ascii", "replace") for document in manifest.documents)
        jws = manifest.jws.decode("ascii", "replace")
        check_size((jws, *documents))
        return await self._put(Submission(*self._waiter(), manifest=jws, documents=documents))

    def _waiter(self) -> tuple[float, asyncio.Future[list[Sent | Problem]]]:
        if self._keeper is None:
            raise ClientError("use the stream in an `async with` block")
        if self._over is not None:
            raise told(self._over)
        loop = asyncio.get_running_loop()
        return loop.time() + self._transport.retry_seconds, loop.create_future()

    async def _put(self, work: Submission) -> list[Sent | Problem]:
        self.queue.append(work)
        self._poke()
        return await work.done

    def _poke(self) -> None:
        if self._current is not None:
            self._current.poke()

    # -- receiving ------------------------------------------------------------------------------

    @property
    def cursor(self) -> str:
        """Everything that `mail` has given so far: acknowledge it with ``acknowledge(up_to=stream.cursor)``."""
        return write_cursor(self._given)

    async def mail(self) -> AsyncIterator[Entry]:
        """Entries as they come, for as long as the caller goes on; each is given once.

        Acknowledge each when it is safe with you; what was not acknowledged comes again to the next
        stream. Raises `Problem` when the stream has ended for good.
        """
        self._wants_mail = True
        self._poke()
        while True:
            while self._inbox:
                members = self._inbox.popleft()
                self._inbox_bytes -= body_size(members)
                if self._current is not None and self.credit_due(self._current.session) is not None:
                    self._current.poke()
                entry = read_entry(members)
                lane = LANES[entry.lane]
                self._given[lane] = entry.seq
                self._tally.handed(lane, entry.seq)
                if self._ledger is not None:
                    self._ledger.given(entry)
                yield entry
            if self._over is not None:
                raise told(self._over)
            self._arrived.clear()
            await self._arrived.wait()

    async def acknowledge(self, *entries: Entry | int, up_to: str | None = None) -> None:
        """Acknowledge entries, or everything up to a cursor; returns when that is on disk. Raises `Problem`."""
        seqs = checked(tuple(map(seq_of, entries)), tuple[Seq, ...])
        cursor = read_cursor(checked(up_to, CursorText)) if up_to is not None else START
        if self._ledger is not None:  # a signature names each entry
            seqs, cursor = tuple(self._ledger.named(entries, cursor)), START
        works = []
        for start in range(0, max(len(seqs), 1), MAX_ACKS):
            part = seqs[start : start + MAX_ACKS]
            works.append(
                Acking(*self._waiter(), entries=tuple((self._tally.done(seq), seq) for seq in part), up_to=cursor)
            )
        self._tally.done_up_to(cursor)
        await self._put_acks(works)

    async def refuse(self, entry: Entry | int, reason: str, code: RefusalCode = "other") -> None:
        """Refuse an entry; its sender is told `reason`, and its system `code` (of `protocol.reasons`).

        Raises `Problem`.
        """
        refusal = checked({"seq": seq_of(entry), "reason": reason, "code": code}, Refusal)
        if self._ledger is not None:
            self._ledger.named([entry], START)
        await self._put_acks([Acking(*self._waiter(), refuse=(refusal,))])
        self._tally.done(refusal.seq)

    async def _put_acks(self, works: list[Acking]) -> None:
        self.acks += works
        self._poke()
        await asyncio.gather(*(work.done for work in works))

    # -- what a connection tells ----------------------------------------------------------------

    def answered(self, work: Submission, outcomes: tuple[Members, ...], stopping: bool) -> None:
        """The hub's answer to a submission; `stopping`: on a connection that takes no more."""
        read = [read_outcome(outcome) for outcome in outcomes]
        problem = next((one for one in read if isinstance(one, Problem) and one.retryable), None)
        if problem is None or self._is_late(work):
            work.settle(read)
            return
        work.keep(read)
        self._send_again(self.queue, work, 0.0 if stopping else work.wait(problem))

    def refused(self, work: Submission, problem: Problem) -> None:
        """The hub refused a manifest as a whole."""
        if problem.retryable and not self._is_late(work):
            self._send_again(self.queue, work, work.wait(problem))
        else:
            work.fail(problem)

    def acked(self, work: Acking) -> None:
        if self._ledger is not None:
            self._ledger.done([*(seq for _, seq in work.entries), *(refusal.seq for refusal in work.refuse)])
        if not work.done.done():
            work.done.set_result([])

    def ack_failed(self, works: list[Acking], problem: Problem) -> None:
        """The hub did not carry out a frame of acknowledgements: when it held several, each is tried alone."""
        for work in works:
            if problem.retryable and not self._is_late(work):
                self._send_again(self.acks, work, work.wait(problem))
            elif len(works) > 1:
                work.alone = True
                self.acks.append(work)
            else:
                work.fail(problem)

    @staticmethod
    def _is_late(work: Submission | Acking) -> bool:
        return asyncio.get_running_loop().time() >= work.deadline

    def _send_again(self, queue: deque[Any], work: Submission | Acking, wait: float) -> None:
        def put() -> None:
            if self._over is not None:
                work.fail(told(self._over))
            elif not work.done.done():
                queue.append(work)
                self._poke()

        if wait:
            asyncio.get_running_loop().call_later(wait, put)
        else:
            put()

    def deliver(self, frame: Mail) -> None:
        """Mail has come in. What had come on another connection is left out. Raises StreamError."""
        received = self._received
        for members in frame.entries:
            lane, seq = LANES.get(str(members.get("lane")), -1), members.get("seq")
            if lane < 0 or not isinstance(seq, int):
                raise StreamError("an entry has neither lane nor sequence")
            if seq > received[lane]:
                received[lane] = seq
                self._inbox.append(members)
                self._inbox_bytes += body_size(members)
        for lane, seq in enumerate(read_cursor(frame.cursor)):
            received[lane] = max(received[lane], seq)
        self._arrived.set()

    def credit_due(self, session: Session) -> Credit | None:
        """What the hub may send more, once half of the window is free."""
        if not self._wants_mail:
            return None
        messages = self._window_messages - len(self._inbox) - session.mail_messages
        size = self._window_bytes - self._inbox_bytes - session.mail_bytes
        if 2 * messages < self._window_messages and 2 * size < self._window_bytes:
            return None
        return Credit(max(messages, 0), max(size, 0))

    def ack_frame(self, n: int, works: list[Acking]) -> Ack:
        if self._ledger is None:
            return self._tally.frame(n, works)
        seqs = [seq for work in works for _, seq in work.entries]
        return Ack(n, signed=self._ledger.sign(seqs, [refusal for work in works for refusal in work.refuse]))

    def give_back(self, sent: list[Submission], acks: list[Acking]) -> None:
        """A connection has ended before it answered these."""
        self.queue.extendleft(work for work in reversed(sent) if not work.done.done())
        self.acks.extendleft(work for work in reversed(acks) if not work.done.done())
        if self._over is not None:
            self._end(self._over)
        self._poke()

    # -- the connection -------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Have a connection, for as long as that can be."""
        loop = asyncio.get_running_loop()
        pause, lost = transport.FIRST_PAUSE, loop.time()
        while self._over is None:
            try:
                connection = await self._connect()
            except Problem as refusal:
                problem = refusal
            except (aiohttp.ClientError, TimeoutError, ConnectionError, StreamError) as error:
                reason = str(error) or type(error).__name__
                problem = Problem("unreachable", f"no stream to {self._transport.url}: {reason}")
            else:
                await self._use(connection)
                if self._closing:
                    return
                if connection.useful:
                    pause, lost = transport.FIRST_PAUSE, loop.time()
                if not connection.ended.is_set() and connection.age > FLEETING_SECONDS:
                    continue  # it is draining: another takes over at once
                problem = connection.problem or Problem("unreachable", "the hub ended the stream")
            left = lost + self._transport.retry_seconds - loop.time()
            if not problem.retryable or left <= 0:
                self._end(problem)
                return
            if self._current is not None:
                self._current.finish()  # nobody takes over yet, but a hub that is stopping waits for it
                self._current = None
            # Jitter, so that clients that lost the same hub do not come back together.
            wait = max(random.uniform(0, pause), problem.retry_after or 0.0)  # noqa: S311
            await asyncio.sleep(min(wait, left))
            pause = min(pause * 2, transport.LONGEST_PAUSE)

    async def _connect(self) -> Connection:
        """A new connection. Raises as `Transport.websocket` and `Connection.open` do."""
        ws = await self._transport.websocket(HEARTBEAT_SECONDS)
        hello = Hello(after=write_cursor(self._received))
        if self._wants_mail:
            messages = max(self._window_messages - len(self._inbox), 0)
            size = max(self._window_bytes - self._inbox_bytes, 0)
            hello = Hello(messages, size, hello.after)
        try:
            async with asyncio.timeout(self._transport.timeout):
                return await Connection.open(self, ws, hello)
        except BaseException:
            await ws.close()
            raise

    async def _use(self, connection: Connection) -> None:
        """Let a connection take over; returns when it has ended or is draining."""
        if self._current is not None:
            self._current.finish()
        self._current = connection
        task = asyncio.create_task(connection.run())
        self._running.add(task)
        task.add_done_callback(self._ran)
        connection.poke()
        self._opened.set()
        waits = [asyncio.create_task(event.wait()) for event in (connection.draining, connection.ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._end(error)

    def _end(self, error: Exception) -> None:
        """Nothing is done any more, and whoever waits is told why."""
        self._over = error
        for work in (*self.queue, *self.acks):
            work.fail(told(error))
        self.queue.clear()
        self.acks.clear()
        self._opened.set()
        self._arrived.set()
