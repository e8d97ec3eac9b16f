"""The processes that check PDFs: what a hostile one costs, what they may not do, and that they come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hub.observe import metrics
from hub.pdf import pool as pools
from hub.pdf.pool import Bounds, NoProcessError, Pool, Process, TrustData
from hub.pdf.process import Order
from hub.pdf.result import PdfResult, Verdict
from tests.support import pdf_hostile as hostile
from tests.support import pdf_signed as signed
from tests.support.until import until

TRUST = TrustData(tuple(signed.anchors()))
USUAL = Bounds(64 << 20, 10.0, 512 << 20)


@asynccontextmanager
async def running(bounds: Bounds = USUAL, width: int = 1) -> AsyncIterator[Pool]:
    pool = Pool(bounds, width)
    try:
        yield pool
    finally:
        await pool.stop()
        assert pool.processes == 0


async def checked(pool: Pool, tmp_path: Path, pdf: bytes, trust: TrustData = TRUST) -> PdfResult:
    path = tmp_path / f"{time.monotonic_ns()}.pdf"
    path.write_bytes(pdf)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return await pool.check(descriptor, trust)
    finally:
        os.close(descriptor)


def pids(pool: Pool) -> set[int]:
    return {process.pid for process in pool._running}


async def test_one_process_checks_many(tmp_path: Path) -> None:
    pdf = signed.issued()
    before = metrics.PDF_CHECKED.labels("signed")._value.get()
    async with running() as pool:
        assert pool.processes == 0, "none before the first PDF"
        results = [await checked(pool, tmp_path, pdf) for _ in range(3)]
        (pid,) = pids(pool)
        assert [result.verdict for result in results] == [Verdict.SIGNED] * 3
        assert results[0].trust == TRUST.digest.hex() and results[0].checked_at.endswith("Z")
        with pytest.raises(ProcessLookupError):
            await pool.stop()
            os.kill(pid, 0)
    assert metrics.PDF_CHECKED.labels("signed")._value.get() == before + 3


@pytest.mark.parametrize(
    ("made", "bounds", "reason"),
    [
        (lambda: hostile.many_numbers(5_000_000), Bounds(64 << 20, 0.5, 1 << 30), "seconds of computing"),
        (lambda: hostile.many_numbers(2_000_000), Bounds(64 << 20, 60.0, 64 << 20), "more memory"),
        (lambda: b"%PDF-1.7\n" + bytes(99_999), Bounds(50_000, 10.0, 512 << 20), "more than 50000 are not"),
        (hostile.nested, USUAL, "nested too deeply"),
    ],
    ids=["time", "memory", "size", "depth"],
)
async def test_what_costs_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[], bytes], bounds: Bounds, reason: str
) -> None:
    monkeypatch.setattr(pools, "WALL_FACTOR", 200.0)  # this machine may have other work
    async with running(bounds) as pool:
        result = await checked(pool, tmp_path, made())
        assert result.verdict is Verdict.LIMIT and reason in result.reason, result.reason
        # The next one finds a process that works, whatever became of that one.
        if bounds.max_bytes > 100_000:
            assert (await checked(pool, tmp_path, signed.issued())).verdict is Verdict.SIGNED


async def test_a_process_that_stands_still_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as pool:
        await checked(pool, tmp_path, signed.paper())
        (pid,) = pids(pool)
        monkeypatch.setattr(pools, "WALL_FACTOR", 0.01)
        os.kill(pid, signal.SIGSTOP)
        result = await checked(pool, tmp_path, signed.issued())
        assert result.verdict is Verdict.LIMIT and "it takes more than 0.1 seconds" in result.reason
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        monkeypatch.undo()
        assert (await checked(pool, tmp_path, signed.issued())).verdict is Verdict.SIGNED


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "more memory than there is"), (signal.SIGSEGV, "died of it")]
)
async def test_a_process_that_dies_under_a_pdf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    check = Process.check

    async def dying(self: Process, descriptor: int, order: Order) -> PdfResult:
        os.kill(self.pid, number)
        return await check(self, descriptor, order)

    async with running() as pool:
        monkeypatch.setattr(Process, "check", dying)
        result = await checked(pool, tmp_path, signed.issued())
        assert result.verdict is Verdict.LIMIT and reason in result.reason
        monkeypatch.undo()
        assert (await checked(pool, tmp_path, signed.issued())).verdict is Verdict.SIGNED


async def test_the_death_of_another_is_not_blamed_on_a_pdf(tmp_path: Path) -> None:
    async with running() as pool:
        await checked(pool, tmp_path, signed.paper())
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        under_way = asyncio.create_task(checked(pool, tmp_path, signed.issued()))
        await until(lambda: pool._free == [], "it was taken")
        os.kill(pid, signal.SIGKILL)
        assert (await under_way).verdict is Verdict.SIGNED


async def test_one_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    async with running() as pool:
        await checked(pool, tmp_path, signed.paper())
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not next(iter(pool._running)).alive, "it is gone")
        assert (await checked(pool, tmp_path, signed.issued())).verdict is Verdict.SIGNED
        assert pids(pool) != {pid}


async def test_they_leave_when_there_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.1)
    async with running() as pool:
        await checked(pool, tmp_path, signed.paper())
        await until(lambda: pool.processes == 0, "the idle process ended")
        assert (await checked(pool, tmp_path, signed.issued())).verdict is Verdict.SIGNED


async def test_one_that_is_taken_while_another_leaves_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(width=2) as pool:
        await asyncio.gather(*(checked(pool, tmp_path, signed.issued()) for _ in range(2)))
        first, second = pool._free
        leaving, go_on, end = asyncio.Event(), asyncio.Event(), Process.end

        async def slow(self: Process) -> None:
            leaving.set()
            await go_on.wait()
            await end(self)

        monkeypatch.setattr(Process, "end", slow)
        sweeping = asyncio.create_task(pool._end([first, second]))
        await leaving.wait()
        assert (await checked(pool, tmp_path, signed.issued())).verdict is Verdict.SIGNED
        taken = await pool._take()
        go_on.set()
        await sweeping
        assert taken is second and taken.alive and pids(pool) == {second.pid}
        pool._free.append(taken)


async def test_they_are_replaced_after_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_CHECKS", 2)
    async with running() as pool:
        seen = set()
        for _ in range(4):
            await checked(pool, tmp_path, signed.paper())
            seen |= pids(pool)
        assert len(seen) == 2


async def test_several_at_a_time(tmp_path: Path) -> None:
    async with running(width=2) as pool:
        results = await asyncio.gather(*(checked(pool, tmp_path, signed.issued()) for _ in range(6)))
        assert {result.verdict for result in results} == {Verdict.SIGNED}
        assert pool.processes == 2


async def test_what_they_are_bound_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIENTHONG_DATABASE_URL", "postgresql://bí-mật")
    async with running() as pool:
        await checked(pool, tmp_path, signed.issued())
        (pid,) = pids(pool)
        status = Path(f"/proc/{pid}")
        limits = (status / "limits").read_text()
        assert "LIENTHONG" not in (status / "environ").read_text()
        named = {line[:26].strip(): line[26:].split() for line in limits.splitlines()}
        assert named["Max file size"][:2] == ["0", "0"] and named["Max core file size"][:2] == ["0", "0"]
        # One file more than it has open: that which it is handed.
        assert int(named["Max open files"][1]) == len(list((status / "fd").iterdir())) + 1
        assert 512 << 20 < int(named["Max address space"][1]) < 2 << 30
        # Nothing of it outlives whoever reads its answers.
        process = next(iter(pool._running))
        process._own.close()
        await process._process.wait()


FORBIDDEN = """
import os, socket, subprocess, sys
from hub.pdf.process import Limits, _bound
_bound(Limits(256 << 20))
done = []
def tried(what):
    try:
        what()
        done.append(what)
    except OSError:
        pass
tried(lambda: open("/etc/hostname"))
tried(lambda: open(sys.argv[1], "w"))
tried(lambda: os.open("/etc/hostname", os.O_RDONLY))
tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])), 1))
tried(lambda: socket.getaddrinfo("crl.example.invalid", 80))
tried(lambda: subprocess.run(["true"]))
tried(lambda: os.system("true"))
tried(lambda: os.remove(sys.argv[3]))
tried(lambda: os.fork() or os._exit(0))
import json.tool  # a module that is needed late may still come
os._exit(len(done))
"""


async def test_what_they_may_not_do(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    kept = tmp_path / "giữ.txt"
    kept.write_text("còn")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORBIDDEN, str(tmp_path / "mới.txt"), str(port), str(kept)
    )
    assert await process.wait() == 0
    assert kept.exists() and not (tmp_path / "mới.txt").exists()
    server.close()
    await server.wait_closed()


async def test_a_process_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools.sys, "executable", "/bin/false")
    async with running() as pool:
        with pytest.raises(NoProcessError, match="could not be started"):
            await checked(pool, tmp_path, signed.issued())
        monkeypatch.undo()
        assert (await checked(pool, tmp_path, signed.issued())).verdict is Verdict.SIGNED


ORPHAN = """
import asyncio, os, sys
from hub.pdf.pool import Bounds, Pool, TrustData
async def main():
    pool = Pool(Bounds(64 << 20, 10.0, 512 << 20))
    await pool.check(os.open(sys.argv[1], os.O_RDONLY), TrustData())
    print(pool._free[0].pid, flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""


async def test_they_do_not_outlive_the_hub(tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(signed.paper())
    hub = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHAN, str(file), stdout=asyncio.subprocess.PIPE
    )
    assert hub.stdout is not None
    pid = int(await hub.stdout.readline())
    os.kill(pid, 0)
    hub.kill()
    await hub.wait()
    await until(lambda: not _runs(pid), "it is gone too")


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_trust_is_told_apart_by_what_is_in_it() -> None:
    one, other = signed.authority().der, signed.below().der
    assert TrustData((one, other)).digest == TrustData((other, one)).digest
    assert len({TrustData((one,)).digest, TrustData((), (one,)).digest, TrustData((one, other)).digest}) == 3
