"""``python -m benchmarks.locust``: Locust against a hub of its own, or against yours (`--endpoints`).

Starts a hub on a fresh PostgreSQL in a temporary directory, registers endpoints, signs documents, runs Locust
headless, and ends and removes everything. The exit code is Locust's: 0 only when nothing was lost and no
threshold was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import resource
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import aiohttp
import asyncpg
import msgspec

from benchmarks.locust import prepare
from benchmarks.locust.load import LoadError
from benchmarks.node import KNOWN_IN_A_ROW, Node
from protocol.problems import LienthongError

DOORS = Path(__file__).parent
RECEIVER_SHARE = 0.1
"""Of the users, how many receive."""
SPAWN_SECONDS = 20.0
SPAWN_RATES = (20.0, 250.0)
"""Users a second, at least and at most. Each makes a connection; a faster start only measures that."""
SPARE_FILES = 300
"""File descriptors that a process needs beside one for each user."""
ENDING_SECONDS = 120.0
VERDICT = "verdict.json"


def raise_file_limit(users: int) -> None:
    """Let this process and its children have as many open files as the system allows.

    Raises LoadError when that is not enough for `users` connections.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < users + SPARE_FILES:
        raise LoadError(f"{users} users need {users + SPARE_FILES} open files; `ulimit -Hn` allows {hard}")


class Plan:
    """The numbers of a run, from the options."""

    def __init__(self, options: argparse.Namespace, given: prepare.Endpoints | None) -> None:
        """`given`: endpoints that are there already; else there is one for each user."""
        self.users = options.users
        self.receivers = options.receivers or max(1, round(RECEIVER_SHARE * options.users))
        if given:
            self.receivers = len(given.receivers)
        cells = options.processes
        spare = cells if cells > 1 else 0
        sending = self.users - self.receivers - spare - 1  # and one administrator
        if sending < cells or self.receivers < cells:
            raise LoadError(
                f"{self.users} users are too few: {self.receivers + spare} read mailboxes, one looks at the status"
            )
        self.senders = min(sending, len(given.senders)) if given else sending
        self.spawn_rate = min(SPAWN_RATES[1], max(SPAWN_RATES[0], self.users / SPAWN_SECONDS))
        self.seconds = math.ceil(options.seconds + (0 if options.shape else self.users / self.spawn_rate))
        self.pace = sending * options.batch / options.rate
        each = (math.ceil(self.seconds / self.pace) + 2) * options.batch  # and two to spare
        self.documents = each * math.ceil(sending / self.senders) * self.senders
        self.fan_out = options.fan_out
        if options.shape == "fan-out" and self.fan_out == 1:
            self.fan_out = max(1, self.receivers // cells)


async def run(options: argparse.Namespace, folder: Path) -> int:
    """One run with a load in `folder`. Returns Locust's exit code."""
    given = prepare.read_endpoints(options.endpoints) if options.endpoints else None
    plan = Plan(options, given)
    raise_file_limit(options.users)
    if given:
        given = prepare.Endpoints(given.hub, given.senders[: plan.senders], given.receivers)
        return await _attack(options, plan, given, options.endpoints.parent, folder)
    print(f"starting a hub of {options.workers} workers on a fresh PostgreSQL", flush=True)
    async with Node(options.workers) as node:
        print(f"registering {plan.senders} senders and {plan.receivers} receivers", flush=True)
        connection = await asyncpg.connect(node.database_url)
        try:
            found = await prepare.register(connection, node.url, plan.senders, plan.receivers)
        finally:
            await connection.close()
        await _until_known(node.url, found.receivers[-1].token)
        code = await _attack(options, plan, found, folder, folder, node)
        for line in node.log_tail().splitlines():
            if '"level": "info"' not in line:
                print(f"  the hub's log: {line}")
        return code


async def _attack(
    options: argparse.Namespace,
    plan: Plan,
    found: prepare.Endpoints,
    beside: Path,
    folder: Path,
    node: Node | None = None,
) -> int:
    print(f"signing {plan.documents:,} documents", flush=True)
    load = folder / "load"
    await asyncio.to_thread(prepare.sign, found, beside, load, plan.documents, plan.fan_out, options.processes)
    cpu, since = (node.cpu() if node else None), perf_counter()
    code = await _locust([*_command(options, plan, load), "--verdict", str(folder / VERDICT)])
    if node and cpu and (folder / VERDICT).exists():
        used, seconds = node.cpu() - cpu, perf_counter() - since
        sent = max(1, msgspec.json.decode((folder / VERDICT).read_bytes())["counts"]["sent"])
        for name, busy in (("the hub", used.hub), ("its PostgreSQL", used.postgres)):
            print(f"  {name}: {busy / seconds:.0%} of a CPU, {busy / sent * 1e6:,.0f} µs for each document")
    return code


def _command(options: argparse.Namespace, plan: Plan, load: Path) -> list[str]:
    command = [sys.executable, "-m", "locust", "-f", str(DOORS / f"{options.door}_door.py"), "--headless"]
    command += ["--load", str(load), "--users", str(plan.users), "--spawn-rate", f"{plan.spawn_rate:g}"]
    command += ["--run-time", f"{plan.seconds}s", "--pace", f"{plan.pace:g}", "--batch", str(options.batch)]
    command += ["--sample", str(options.sample), "--poll-seconds", f"{options.poll_seconds:g}"]
    command += ["--patience", f"{options.patience:g}"]
    command += ["--max-p99-ms", f"{options.max_p99_ms:g}", "--max-error-share", f"{options.max_error_share:g}"]
    command += ["--shape", options.shape] if options.shape else ["--reset-stats"]
    if options.processes > 1:
        port = str(_free_port())
        command += ["--processes", str(options.processes), "--master-bind-host", "127.0.0.1"]
        command += ["--master-bind-port", port, "--master-port", port]
    for name in ("html", "csv"):
        if value := getattr(options, name):
            command += [f"--{name}", value]
    if options.quiet:
        command += ["--only-summary", "--loglevel", "WARNING"]
    return command


def _free_port() -> int:
    """A port for Locust's processes to talk on: its usual one may be taken by another run."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def _locust(command: list[str]) -> int:
    """Run Locust; when this program is interrupted it is told to stop, and given time to settle."""
    process = await asyncio.create_subprocess_exec(*command, cwd=DOORS.parents[1], start_new_session=True)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        try:
            async with asyncio.timeout(ENDING_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        raise


async def _until_known(url: str, token: str) -> None:
    """Wait until every worker lets in the last endpoint that was made: connections are dealt out by chance."""
    headers = {"Authorization": f"Bearer {token}"}
    known = 0
    async with asyncio.timeout(60):
        while known < KNOWN_IN_A_ROW:
            async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{url}/v1/mailbox") as got:
                known = known + 1 if got.status == 200 else 0
            if not known:
                await asyncio.sleep(0.05)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locust", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="20 users for 5 s: does it work, not how fast")
    add("--door", choices=doors(), default="http")
    add("--users", type=int, help="agency systems; a tenth of them receive (200)")
    add("--receivers", type=int, help="another number of receivers")
    add("--seconds", type=float, help="of load, once all users are there; with a shape, of all of it (60)")
    add("--rate", type=float, help="documents a second, of all senders together (200)")
    add("--batch", type=int, default=1, help="documents in a submission (1)")
    add("--fan-out", type=int, default=1, help="mailboxes for each document (1; all with that shape)")
    add("--shape", choices=["ramp", "spike", "soak", "fan-out"], default="", help="how users come and go")
    add("--poll-seconds", type=float, default=20.0, help="how long a receiver's poll waits for mail (20)")
    add("--sample", type=int, default=20, help="verify the proof of every so many-th receipt (20)")
    add("--patience", type=float, default=20.0, help="seconds without progress after which the rest is lost (20)")
    add("--max-p99-ms", type=float, default=0.0, help="fail above this 99th percentile from schedule")
    add("--max-error-share", type=float, default=0.0, help="fail above this part of failed requests (0)")
    add("--workers", type=int, default=2, help="processes of the hub (2)")
    add("--processes", type=int, default=1, help="processes of Locust (1)")
    add("--endpoints", type=Path, help="no hub of its own: the endpoints of this file, on the hub it names")
    add("--html", help="write Locust's report to this file")
    add("--csv", help="write Locust's figures to files of this prefix")
    add("--quiet", action="store_true", help="the summary only")
    options = parser.parse_args(arguments)
    options.users = options.users or (20 if options.quick else 200)
    options.seconds = options.seconds or (5.0 if options.quick else 60.0)
    options.rate = options.rate or (40.0 if options.quick else 200.0)
    for name in ("html", "csv"):
        if value := getattr(options, name):
            setattr(options, name, str(Path(value).resolve()))
    return options


def doors() -> list[str]:
    """The doors that have a locustfile."""
    return sorted(path.name.removesuffix("_door.py") for path in DOORS.glob("*_door.py"))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="lienthong-locust-") as folder:
            return asyncio.run(run(options, Path(folder)))
    except (LoadError, LienthongError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
