"""django-pyas2: AS2 (RFC 4130) between two stations, messages signed, MDNs signed and synchronous.

The nearest that Python has to the hub's work. A station sends for sixteen organizations, another one receives
for four; each has a database of its own on the hub's PostgreSQL (the documentation has SQLite; so the commits are
as durable as the hub's) and its files in a folder of its own. The receiving one runs under gunicorn: the
documentation shows only Django's development server. RSA-2048 with SHA-256: pyas2lib signs with RSA only.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.corpus import SENDERS
from benchmarks.peers import peer, postgres, services
from benchmarks.peers.share import SEATS, STRAYS, Share

REQUIREMENTS = Path(__file__).with_name("pyas2_requirements.txt")
ENVIRONMENT = Path(sys.prefix) / "peer-pyas2"
INSTALL_SECONDS = 300
"""For downloads of 40 MB."""


class PyAS2(peer.Peer):
    name = "pyas2"
    title = "django-pyas2"
    guess = 100
    payload_only = True
    defaults: ClassVar[dict[str, Any]] = {"window": 4, "split": 2, "workers": 2}
    tries: ClassVar[list[dict[str, Any]]] = [
        {"window": 1},
        {"window": 2},
        {"window": 8},
        {"workers": 3},
        {"workers": 4},
        {"split": 1, "window": 4},
        {"split": 4, "window": 1},
    ]

    _server: services.Service | None = None

    @classmethod
    def missing(cls) -> str | None:
        return None if (ENVIRONMENT / "installed").exists() else install()

    def _station(self, name: str) -> dict[str, str]:
        at = urlsplit(self.ground.database(f"peer_as2_{name}"))
        return {
            "database": at.path.removeprefix("/"),
            "host": parse_qs(at.query)["host"][0],
            "folder": str(self._folder / name),
        }

    async def start(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[Path] = set()
        (port,) = services.free_ports(1)
        self.address = f"http://{services.LOOPBACK}:{port}/pyas2/as2receive"
        # Not on the event loop: 20 keys of RSA take a second.
        senders, receivers = await asyncio.to_thread(
            lambda: ([_key(f"S{n}") for n in range(SENDERS)], [_key(f"R{n}") for n in range(self.receivers)])
        )
        for name, own, others in (("sender", senders, receivers), ("receiver", receivers, senders)):
            await postgres.make_database(self.ground.database, f"peer_as2_{name}")
            (folder / name).mkdir()
            await asyncio.to_thread(self._fill, name, own, others)
        self._server = services.Service("gunicorn", folder)
        self._server.start(
            [
                str(ENVIRONMENT / "bin" / "gunicorn"),
                *("--bind", f"{services.LOOPBACK}:{port}", "--workers", str(self.settings["workers"])),
                *("--pythonpath", str(peer.ROOT), "--worker-tmp-dir", str(folder), "--log-level", "warning"),
                "benchmarks.peers.pyas2_site:application()",
            ],
            {"STATION": json.dumps(self._station("receiver"))},
        )
        await self._server.until(lambda: services.listening(port))

    def _fill(self, name: str, own: list[dict[str, str]], others: list[dict[str, str]]) -> None:
        filled = subprocess.run(
            [ENVIRONMENT / "bin" / "python", "-m", "benchmarks.peers.pyas2_site"],
            input=json.dumps(
                {
                    "organizations": own,
                    "partners": [{**other, "url": self.address} for other in others],
                }
            ),
            env={**self.environment(), "STATION": json.dumps(self._station(name))},
            cwd=peer.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if filled.returncode:
            raise services.ServiceError(f"the station could not be set up:\n{filled.stderr[-3000:]}")

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
        for name in ("sender", "receiver"):
            await postgres.drop_database(self.ground.database, f"peer_as2_{name}")

    def server_seconds(self) -> float:
        assert self._server is not None
        return self._server.seconds() + self.ground.postgres_seconds()

    def command(self) -> list[str]:
        return [str(ENVIRONMENT / "bin" / "python"), "-m", "benchmarks.peers.pyas2_sender"]

    def environment(self) -> dict[str, str]:
        return {"STATION": json.dumps(self._station("sender")), "PYTHONWARNINGS": "ignore"}

    async def collect(self, share: Share, first: int, count: int) -> None:
        """Read the inboxes, where the receiving station has put what it accepted."""
        await asyncio.to_thread(self._collect, share, first, count)

    def _collect(self, share: Share, first: int, count: int) -> None:
        places = {share.document(place): place for place in range(first, first + count) if share.sent[place]}
        for receiver in range(self.receivers):
            for path in (self._folder / "receiver" / "messages" / f"R{receiver}" / "inbox").glob("*/*"):
                if path in self._read:
                    continue
                self._read.add(path)
                place = places.get(path.read_bytes(), -1)
                if place < 0 or share.receivers[place] != receiver:
                    share.add(SEATS - 1, STRAYS, 1)
                else:
                    share.deliveries[place] += 1

    async def left_over(self) -> int:
        """Messages that a station does not hold for done, and MDNs that are not signed."""
        undone = (
            "select (select count(*) from pyas2_message where status <> 'S' or not signed)"
            " + (select count(*) from pyas2_mdn where not signed)"
        )
        stations = [self.ground.database(f"peer_as2_{name}") for name in ("sender", "receiver")]
        return sum([int(await postgres.ask(station, undone)) for station in stations])

    async def versions(self) -> dict[str, str]:
        pinned = dict(line.split("==") for line in REQUIREMENTS.read_text().split("\n") if "==" in line)
        database = "PostgreSQL " + await postgres.ask(self.ground.database("postgres"), "show server_version")
        return {
            "server": f"django-pyas2 {pinned['django-pyas2']}, gunicorn {pinned['gunicorn']}, {database}",
            "client": f"django-pyas2 {pinned['django-pyas2']}, Django {pinned['Django']}",
        }


def install() -> str | None:
    """Make the environment, with pip, once. Returns what is in the way, or None."""
    print(f"making the environment of django-pyas2 in {ENVIRONMENT}, once", flush=True)
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)],
        [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "--requirement", str(REQUIREMENTS)],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"its environment could not be made: {error}"
        if done.returncode:
            return f"its environment could not be made: {done.stderr.strip()[-500:]}"
    (ENVIRONMENT / "installed").touch()
    return None


def _key(name: str) -> dict[str, str]:
    """A key of its own, and a certificate that it signed itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()
    return {"name": name, "key": private + certificate, "certificate": certificate}
