"""Two nodes behind the proxy of deploy/: its configuration says what it must, and HAProxy does it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from yarl import URL

from hub import config
from hub.app import KEEP_ALIVE_SECONDS
from hub.doors.models import MAX_WAIT_SECONDS
from protocol.client import HubClient
from protocol.evidence import Receipt, verify_receipt
from protocol.problems import MEDIA_TYPE, Problem, from_members
from protocol.signature import from_jwk, generate, private_pem
from tests.conftest import RunningHub, StartHub
from tests.integration.test_deploy import DEPLOY, compose, mounts, program, seconds
from tests.support.parties import PROVINCE, VAN_YEN

CONFIGURATION = DEPLOY / "haproxy.cfg"
HAPROXY = program("haproxy")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


# -- the configuration, read ----------------------------------------------------------------------


def sections() -> dict[str, list[str]]:
    """The configuration's sections by name, comments left out."""
    found: dict[str, list[str]] = {}
    for line in CONFIGURATION.read_text().splitlines():
        text = line.partition("#")[0].rstrip()
        if text and not text.startswith(" "):
            lines = found.setdefault(text, [])
        elif text:
            lines.append(text.strip())
    return found


def setting(section: str, name: str) -> str:
    """The one value of a keyword in a section."""
    (value,) = [line.removeprefix(name).strip() for line in sections()[section] if line.startswith(name + " ")]
    return value


def test_the_proxy_waits_longer_than_a_reader() -> None:
    assert set(sections()) == {"global", "defaults", "resolvers system", "frontend agencies", "backend hubs"}
    for name in ("timeout client", "timeout server"):
        assert seconds(setting("defaults", name)) > MAX_WAIT_SECONDS + 15
    assert seconds(setting("global", "hard-stop-after")) > MAX_WAIT_SECONDS
    stop = compose()["services"]["proxy"]["stop_grace_period"]
    assert seconds(stop) > seconds(setting("global", "hard-stop-after"))
    # Whichever side closes an idle connection to a node must not be the hub, in the middle of a request.
    assert seconds(setting("defaults", "timeout http-keep-alive")) < KEEP_ALIVE_SECONDS


def test_the_proxy_repeats_what_was_not_answered_and_nothing_else() -> None:
    assert set(setting("defaults", "retry-on").split()) == {"conn-failure", "empty-response"}
    assert setting("defaults", "option redispatch") == "1"
    assert "uri /healthz/live" in setting("backend hubs", "http-check send")


def test_the_proxy_leads_to_the_nodes_of_the_compose_file() -> None:
    services = compose()["services"]
    text = CONFIGURATION.read_text()
    nodes = {f"{name}:{config.DEFAULT_PORT}" for name in services if name.startswith("hub-")}
    assert set(re.findall(r"^    server .*-(hub-.:\d+)}", text, flags=re.MULTILINE)) == nodes
    proxy = services["proxy"]
    (port,) = [mapping.rpartition(":")[2] for mapping in proxy["ports"]]
    assert setting("frontend agencies", "bind").startswith('"${LIENTHONG_BIND-:' + port)
    assert "./haproxy.cfg" in mounts(proxy).values()
    (secret,) = proxy["secrets"]
    assert proxy["environment"] == {"LIENTHONG_TLS_PEM": f"/run/secrets/{secret['target']}"}


# -- the configuration, run -----------------------------------------------------------------------


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1: the file that clients trust, and the proxy's with the key in it."""
    key = generate("ES256")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Trục liên thông Yên Bái")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
        .public_bytes(Encoding.PEM)
    )
    trusted, both = folder / "trusted.pem", folder / "server.pem"
    trusted.write_bytes(certificate)
    both.write_bytes(certificate + private_pem(key))
    return trusted, both


class RunningProxy:
    """HAProxy with the configuration of deploy/ before two nodes, on a free port of loopback."""

    def __init__(self, folder: Path, node_a: str, node_b: str) -> None:
        trusted, both = self_signed(folder)
        self.tls = ssl.create_default_context(cafile=str(trusted))
        self.url = ""
        self._environment = os.environ | {
            "LIENTHONG_TLS_PEM": str(both),
            "LIENTHONG_HUB_A": node_a.removeprefix("http://"),
            "LIENTHONG_HUB_B": node_b.removeprefix("http://"),
        }

    async def _start(self, listener: socket.socket, *options: str) -> asyncio.subprocess.Process:
        assert HAPROXY is not None
        return await asyncio.create_subprocess_exec(
            *(HAPROXY, "-db", "-f", str(CONFIGURATION), *options),
            *("-n", "100"),  # what an account without privileges may have
            env=self._environment | {"LIENTHONG_BIND": f"fd@{listener.fileno()}"},
            pass_fds=(listener.fileno(),),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __aenter__(self) -> RunningProxy:
        # The socket is ours and listens already: clients may come before HAProxy does.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            check = await self._start(listener, "-c")
            _, faults = await check.communicate()
            assert check.returncode == 0, faults.decode()
            self._process = await self._start(listener)
            self.url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await self._process.communicate()

    def session(self) -> aiohttp.ClientSession:
        """A client that repeats nothing by itself."""
        connector = aiohttp.TCPConnector(ssl=self.tls, force_close=True)
        return aiohttp.ClientSession(self.url, connector=connector)


@pytest.fixture
async def nodes(start_hub: StartHub, tmp_path: Path) -> tuple[RunningHub, RunningHub]:
    """Two nodes with a database and a blob directory together, and a data directory each."""
    blobs = str(tmp_path / "blobs")
    first = await start_hub(data_dir=str(tmp_path / "a"), blob_dir=blobs)
    return first, await start_hub(data_dir=str(tmp_path / "b"), blob_dir=blobs)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing answers; nobody else can take it."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


async def test_two_nodes_are_one_hub(nodes: tuple[RunningHub, RunningHub], tmp_path: Path) -> None:
    first, second = nodes
    province = await first.register("ubnd-tinh", PROVINCE)
    district = await first.register("van-yen", VAN_YEN)
    await second.follow()
    file = tmp_path / "công văn.pdf"
    file.write_bytes("kết quả liên thông văn bản quý III".encode() * 1000)
    async with province.client(first.url) as sender, district.client(second.url) as receiver:
        attachment = await sender.upload(file)
        sent = await sender.send(province.document(VAN_YEN, attachments=(attachment,)))
        (entry,), _ = await receiver.read(wait=20)
        await receiver.download(entry.document.attachments[0], tmp_path / "nhận được.pdf")
        await receiver.acknowledge(entry)
        (delivery,) = (await sender.events(sent.id))["deliveries"]
        # The first node was there before the second had a key: it has to know of it all the same.
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await sender.hub_keys()}
    assert (tmp_path / "nhận được.pdf").read_bytes() == file.read_bytes()
    assert len(keys) == 2
    receipts = sent.receipt, msgspec.convert(delivery["receipt"], Receipt)
    assert [verify_receipt(receipt, keys.get).event["event"] for receipt in receipts] == [
        "accepted",
        "acknowledged",
    ]
    assert len({receipt.seal for receipt in receipts}) == 2


@needs_haproxy
async def test_documents_pass_the_proxy_when_a_node_is_missing(
    nodes: tuple[RunningHub, RunningHub], nobody: str, tmp_path: Path
) -> None:
    hub, _ = nodes
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with RunningProxy(tmp_path, nobody, hub.url) as proxy, proxy.session() as http:
        client = HubClient(proxy.url, province.token, key=province.key, tls=proxy.tls)
        async with client:
            for _ in range(6):
                message = client.sign(province.document(PROVINCE))
                headers = province.headers | {"Content-Type": "application/jose"}
                async with http.post("/v1/messages", data=message, headers=headers) as response:
                    assert response.status == 202
        for path in ("/metrics", "/%6detrics"):
            async with http.get(URL(path, encoded=True)) as response:
                assert response.status == 404
        async with http.get("/v1/hub/keys") as response:
            assert response.headers["Strict-Transport-Security"]
            assert len((await response.json())["keys"]) == 2


@needs_haproxy
async def test_a_node_that_dies_before_it_answers_costs_nothing_and_doubles_nothing(
    nodes: tuple[RunningHub, RunningHub], tmp_path: Path
) -> None:
    hub, other = nodes
    province = await hub.register("ubnd-tinh", PROVINCE)
    await other.follow()

    async def commit_and_die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Alive to the proxy; carries a request out and never says so."""
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /healthz/live"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            assert length is not None
            body = await reader.readexactly(int(length[1]))
            headers = province.headers | {"Content-Type": "application/jose"}
            async with (
                aiohttp.ClientSession(other.url) as inner,
                inner.post("/v1/messages", data=body, headers=headers) as response,
            ):
                assert response.status == 202
        writer.close()

    dying = await asyncio.start_server(commit_and_die, "127.0.0.1", 0)
    address = f"127.0.0.1:{dying.sockets[0].getsockname()[1]}"
    async with dying, RunningProxy(tmp_path, address, hub.url) as proxy, province.client(hub.url) as client:
        async with proxy.session() as http:
            messages = [client.sign(province.document(PROVINCE)) for _ in range(6)]
            answers = []
            for message in messages:
                headers = province.headers | {"Content-Type": "application/jose"}
                async with http.post("/v1/messages", data=message, headers=headers) as response:
                    answers.append((response.status, (await response.json())["state"]))
        # Those that the dying node had first were committed there and came a second time.
        assert (200, "duplicate") in answers and set(answers) <= {(200, "duplicate"), (202, "accepted")}
        entries, _ = await client.read(100)
    assert sorted(entry.body or b"" for entry in entries) == sorted(messages)


@needs_haproxy
async def test_the_proxy_passes_the_hubs_no_and_has_one_of_its_own(
    nodes: tuple[RunningHub, RunningHub], nobody: str, tmp_path: Path
) -> None:
    hub, other = nodes
    province = await hub.register("ubnd-tinh", PROVINCE)
    await other.follow()
    for node in nodes:
        node.hub.admission.closed = True
    async with (
        RunningProxy(tmp_path, hub.url, other.url) as proxy,
        HubClient(proxy.url, province.token, key=province.key, tls=proxy.tls, retry_seconds=0) as client,
    ):
        with pytest.raises(Problem) as refused:
            await client.send(province.document(PROVINCE))
    assert refused.value.code == "stopping" and refused.value.retry_after is not None
    async with (
        RunningProxy(tmp_path, nobody, nobody) as proxy,
        proxy.session() as http,
        http.get("/v1/mailbox") as response,
    ):
        assert response.status == 503 and response.content_type == MEDIA_TYPE
        assert int(response.headers["Retry-After"]) > 0
        problem = from_members(await response.json(content_type=None), response.status)
    assert problem.code == "unreachable" and problem.retryable
