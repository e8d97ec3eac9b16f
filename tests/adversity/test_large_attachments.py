"""Attachments that fit into no memory, and transfers that break."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from protocol.client import Attachment, Problem
from tests.conftest import RunningHub
from tests.support.node import Node
from tests.support.parties import PROVINCE, VAN_YEN, register
from tests.support.proxy import Proxy
from tests.support.until import until

MIB = 1 << 20
PIECE = hashlib.sha512(b"b\xe1\xba\xa3n \xc4\x91\xe1\xbb\x93 quy ho\xe1\xba\xa1ch").digest() * (4 * MIB // 64)
PIECES = 256
"""1 GiB, of which the test never holds more than one piece."""
GROWTH = 64 * MIB


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(PIECES):
        yield PIECE


def _digest() -> str:
    digest = hashlib.sha256()
    for _ in range(PIECES):
        digest.update(PIECE)
    return digest.hexdigest()


def _peak(worker: psutil.Process) -> int:
    """The most memory that a process ever had resident, in bytes."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
async def test_a_gigabyte_passes_in_constant_memory(start_node: Callable[..., Awaitable[Node]]) -> None:
    node = await start_node()
    async with node.database() as connection:
        sender = await register(connection, "ubnd-tinh", PROVINCE)
        receiver = await register(connection, "van-yen", VAN_YEN)
    await node.knows(receiver)
    (worker,) = node.workers()
    sha256 = await asyncio.to_thread(_digest)
    attachment = Attachment(name="bản đồ quy hoạch.tif", size=PIECES * len(PIECE), sha256=sha256)
    address = f"{node.url}/v1/attachments/{sha256}"
    timeout = aiohttp.ClientTimeout(total=100)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        before = _peak(worker)
        headers = sender.headers | {"Content-Length": str(attachment.size)}
        async with http.put(address, data=_pieces(), headers=headers) as response:
            assert response.status == 201, await response.text()
        assert _peak(worker) - before < GROWTH, "the upload was held in memory"
        async with sender.client(node.url) as client:
            await client.send(sender.document(VAN_YEN, attachments=(attachment,)))
        before = _peak(worker)
        digest = hashlib.sha256()
        async with http.get(address, headers=receiver.headers) as response:
            assert (response.status, response.content_length) == (200, attachment.size)
            async for chunk in response.content.iter_chunked(MIB):
                digest.update(chunk)
        assert digest.hexdigest() == sha256
        assert _peak(worker) - before < GROWTH, "the download was held in memory"
        # The last thousand bytes, without the gigabyte before them.
        last = receiver.headers | {"Range": "bytes=-1000"}
        async with http.get(address, headers=last) as response:
            assert response.status == 206
            assert await response.read() == PIECE[-1000:]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hồ sơ đo đạc.zip"
    path.write_bytes(b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(8 * MIB // 32)))
    return path


async def test_a_download_that_breaks_goes_on_where_it_stopped(
    hub: RunningHub, file: Path, tmp_path: Path
) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    proxy = Proxy(cut_after=(3 * MIB, 2 * MIB, 100, MIB))
    target = tmp_path / "nhận được.zip"
    async with province.client(hub.url) as client:
        attachment = await client.upload(file)
    async with proxy.before_hub(hub.url) as url, province.client(url) as client:
        await client.download(attachment, target)
    assert target.read_bytes() == file.read_bytes()
    assert not target.with_name(target.name + ".part").exists()
    assert proxy.connections == 5
    ranges = [int(start) for start in re.findall(rb"Range: bytes=(\d+)-\r\n", proxy.asked)]
    assert len(ranges) == 4
    assert ranges == sorted(ranges)
    assert 2 * MIB < ranges[0] < ranges[1] == ranges[2] < ranges[3]
    # A cut takes along what the client has received but not yet read; that little comes again.
    assert proxy.answered < attachment.size + MIB


async def test_a_download_of_other_bytes_is_thrown_away(hub: RunningHub, file: Path, tmp_path: Path) -> None:
    """What lies half-received under the name of the download need not be a part of it."""
    province = await hub.register("ubnd-tinh", PROVINCE)
    target = tmp_path / "nhận được.zip"
    partial = target.with_name(target.name + ".part")
    partial.write_bytes("không phải".encode())
    async with province.client(hub.url) as client:
        attachment = await client.upload(file)
        with pytest.raises(Problem) as wrong:
            await client.download(attachment, target)
        assert wrong.value.code == "digest-mismatch"
        assert not partial.exists()
        assert not target.exists()
        await client.download(attachment, target)
    assert target.read_bytes() == file.read_bytes()


async def test_an_upload_that_breaks_is_repeated_whole(hub: RunningHub, file: Path) -> None:
    """An upload has no answer before its end, so a cut of the first bytes of the answer loses just that."""
    province = await hub.register("ubnd-tinh", PROVINCE)
    proxy = Proxy(cut_after=(1, 10))
    async with proxy.before_hub(hub.url) as url, province.client(url) as client:
        attachment = await client.upload(file)
    assert proxy.connections == 3
    assert hub.hub.blobs.path(bytes.fromhex(attachment.sha256)).read_bytes() == file.read_bytes()
    incoming = hub.hub.blobs.root / "incoming"
    await until(lambda: not list(incoming.iterdir()), "nothing is left of the other attempts")
