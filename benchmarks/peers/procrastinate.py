"""Procrastinate: a queue and a worker for each receiver, on the hub's own PostgreSQL.

Senders defer `batch` jobs with one statement where that serves them. The task does nothing but take its
document; a document is acknowledged when the worker has written that its job is done. `delete` is the worker's
``delete_jobs``. `pool`: ``"default"`` is Procrastinate's own, which asks each connection for a sign of life before
every statement and wraps it in BEGIN and COMMIT; ``"lean"`` is one that does neither, given to ``App.open_async``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.peers import child, peer, postgres
from benchmarks.peers.share import Book

if TYPE_CHECKING:
    import procrastinate

DATABASE = "peer_procrastinate"
TASK = "deliver"


class Procrastinate(peer.Peer):
    name = "procrastinate"
    title = "Procrastinate"
    guess = 600
    defaults: ClassVar[dict[str, Any]] = {
        "window": 1,
        "batch": 50,
        "split": "roles",
        "ahead": 1000,
        "concurrency": 4,
        "delete": "successful",
        "listen": True,
        "pool": "lean",
    }
    tries: ClassVar[list[dict[str, Any]]] = [
        {"batch": 1},
        {"batch": 10},
        {"concurrency": 1},
        {"concurrency": 8},
        {"concurrency": 16},
        {"ahead": 200},
        {"ahead": 5000},
        {"ahead": 0},
        {"split": 1},
        {"split": 2},
        {"delete": "never"},
        {"pool": "default"},
    ]

    @classmethod
    def missing(cls) -> str | None:
        found = importlib.util.find_spec("procrastinate") and importlib.util.find_spec("psycopg")
        return None if found else "needs the Python packages of the extra bench-peers"

    async def start(self, folder: Path) -> None:
        self.address = await postgres.make_database(self.ground.database, DATABASE)
        import procrastinate

        app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=self.address))
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def stop(self) -> None:
        await postgres.drop_database(self.ground.database, DATABASE)

    def server_seconds(self) -> float:
        return self.ground.postgres_seconds()

    async def left_over(self) -> int:
        undone = "select count(*) from procrastinate_jobs where status <> 'succeeded'"
        return int(await postgres.ask(self.address, undone))

    async def versions(self) -> dict[str, str]:
        names = ("procrastinate", "psycopg")
        return {
            "server": "PostgreSQL " + await postgres.ask(self.address, "show server_version"),
            "client": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names),
        }


def client(address: str, settings: Mapping[str, Any], book: Book) -> child.Client:
    return _Client(address, settings, book)


async def _autocommit(connection: Any) -> None:
    await connection.set_autocommit(True)


class _Client(child.Client):
    async def open(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        import procrastinate
        import psycopg_pool

        self._done: dict[int | None, int] = {}
        size = len(senders) * self.settings["window"] + len(receivers) * (self.settings["concurrency"] + 1) + 1
        connector = procrastinate.PsycopgConnector(conninfo=self.address, min_size=size, max_size=size)
        self._app = procrastinate.App(connector=connector)
        task = self._app.task(name=TASK, pass_context=True)(self._deliver)
        self._queues = [task.configure(queue=_queue(receiver)) for receiver in range(256)]
        self._own_pool: psycopg_pool.AsyncConnectionPool | None = None
        if self.settings["pool"] == "lean":
            self._own_pool = psycopg_pool.AsyncConnectionPool(
                self.address, min_size=size, max_size=size, open=False, configure=_autocommit
            )
            await self._own_pool.open(wait=True)
        await self._app.open_async(self._own_pool)
        self._finish = self._app.job_manager.finish_job
        self._app.job_manager.finish_job = self._finished  # type: ignore[method-assign]

    async def publish(self, sender: int, places: Sequence[int]) -> None:
        book = self.book
        jobs = [
            self._queues[book.receiver(place)].make_new_job(document=book.document(place).decode())
            for place in places
        ]
        # What `batch_defer_async` does, for jobs of several queues at once.
        await self._app.job_manager.batch_defer_jobs_async(jobs)

    async def _deliver(self, context: procrastinate.JobContext, document: str) -> None:
        receiver = int(str(context.job.queue).rpartition("-")[2])
        self._done[context.job.id] = self.book.delivered(document.encode(), receiver)

    async def _finished(self, job: Any, *arguments: Any, **named: Any) -> None:
        await self._finish(job, *arguments, **named)
        self.book.acknowledge([self._done.pop(job.id, -1)])

    async def receive(self, receiver: int) -> None:
        await self._app.run_worker_async(
            queues=[_queue(receiver)],
            name=_queue(receiver),
            concurrency=self.settings["concurrency"],
            listen_notify=self.settings["listen"],
            fetch_job_polling_interval=5.0 if self.settings["listen"] else 0.02,
            delete_jobs=self.settings["delete"],
            install_signal_handlers=False,
            shutdown_graceful_timeout=5,
        )

    async def close(self) -> None:
        await self._app.close_async()
        if self._own_pool is not None:
            await self._own_pool.close()


def _queue(receiver: int) -> str:
    return f"receiver-{receiver}"
