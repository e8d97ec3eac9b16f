"""Assembles one hub process: store, relay, doors; starts and stops them in order."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable

import msgspec
import orjson
import structlog
from aiohttp import web

from hub import tasks
from hub.catalogue import Catalogue
from hub.chores import Chore, Chores
from hub.config import Config
from hub.couriers.axis import AxisMail
from hub.couriers.axis_given import AxisGiver
from hub.couriers.axis_sent import AxisSent
from hub.couriers.beside import Besides
from hub.couriers.link import Links, Parts
from hub.couriers.link_told import Teller
from hub.couriers.mailbox import Mailboxes
from hub.couriers.native_given import NativeGiver
from hub.directory.follow import Directory
from hub.directory.registrar import Registrar
from hub.directory.trust_standing import TrustPolicy
from hub.directory.vault import Vault
from hub.doors.accounts import AccountDoor
from hub.doors.find import Finder
from hub.doors.guard import GuardedHandler
from hub.doors.health import HealthDoor
from hub.doors.http import Gate, answer_problems, json_response
from hub.doors.link import LinkDoor
from hub.doors.log import LogDoor
from hub.doors.log_events import LogEventsDoor
from hub.doors.native import NativeDoor
from hub.doors.openapi import describe
from hub.doors.operations import Operation
from hub.doors.stream import StreamDoor
from hub.doors.verify import ProofDoor
from hub.doors.vxp import AxisDoor
from hub.doors.vxp_agencies import AgencyLists
from hub.doors.vxp_auth import Authenticator
from hub.evidence.describe import Describer
from hub.evidence.entries import StoredEvents
from hub.evidence.history import History
from hub.evidence.integrate import Integrator, identify
from hub.evidence.keys import load_key, load_log_key, public_keys, record_hub_key
from hub.evidence.log import Log
from hub.evidence.proof import Proofs, trusted
from hub.evidence.record import Recorder
from hub.evidence.revocation import TURN_SECONDS as REVOCATION_SECONDS
from hub.evidence.revocation import Revocations
from hub.evidence.revocation_watch import WATCH_SECONDS, Watch
from hub.evidence.sealing import elsewhere
from hub.evidence.states import States
from hub.evidence.thread import Threads
from hub.evidence.timestamps import make_stamper
from hub.evidence.witnessing import Witnessing
from hub.listener import Acceptor, Counts
from hub.observe.report import Reporter
from hub.pdf.checks import Checks
from hub.pdf.policy import PdfSignatures
from hub.pdf.pool import Bounds, Pool
from hub.pdf.queue import PdfQueue
from hub.relay.acknowledge import Acknowledger
from hub.relay.admission import REASONS, Admission
from hub.relay.batcher import longest_wait
from hub.relay.beyond import Hops
from hub.relay.commit import Committer
from hub.relay.handed import Handed
from hub.relay.intake import Intake
from hub.relay.live import Live
from hub.relay.openings import Openings
from hub.relay.package_signatures import PackageSignatures
from hub.relay.rates import Rates
from hub.relay.recall import Recalls
from hub.relay.references import References
from hub.relay.repeats import Repeats
from hub.relay.signed import SignedAcknowledgements
from hub.relay.verify import Verifier
from hub.relay.wake import Wake
from hub.retention import Retention
from hub.store.attachments import Attachments
from hub.store.blobs import Blobs
from hub.store.pool import create_pool
from hub.store.routes import Routes
from protocol.evidence import SEAL_TYPE, Promise, Sealer
from protocol.problems import Problem
from protocol.signature import Signer

log = structlog.get_logger()

KEEP_ALIVE_SECONDS = 75.0


class Hub:
    """One process of the hub. `start`, then `serve` on a socket, then `stop`."""

    def __init__(self, config: Config, database_url: str) -> None:
        self.config = config
        self._url = database_url
        self._runner: web.AppRunner | None = None
        self._acceptors: list[Acceptor] = []
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, load the directory, start the relay. Nothing is served yet."""
        config, url = self.config, self._url
        signer = self._signer = Signer(load_key(config), typ=SEAL_TYPE)
        self.pool = await create_pool(url, 6, "pool")
        self.readers = await create_pool(url, 4, "readers", hot=True)
        log_key = load_log_key(config, signer.key)
        identity = await identify(self.pool, config.log_origin, log_key.public_key())
        self.integrator = Integrator(self.pool, identity, log_key)
        self.stamper = make_stamper(config, self.pool)
        sealer = Sealer(config.hub_name, signer, Promise(identity.origin, config.log_within_seconds))
        self.recorder = Recorder(url, sealer)
        self._sealer = sealer
        await record_hub_key(self.pool, signer.key.public_key())
        self._hub_keys: list[dict[str, str]] = []
        self.hops = Hops(self.pool, signer.kid, ())
        await self._learn_keys()
        policy = TrustPolicy(config.require_certificates, config.revocation)
        self.directory = Directory(self.pool, policy, self._learn_keys)
        await self.directory.refresh()
        self._follower = asyncio.create_task(self.directory.follow(), name="directory")
        self.openings = Openings(
            self.pool, lambda endpoint: self.live.has(endpoint), lambda endpoint: self.wake.awaited(endpoint)
        )
        self.wake = Wake(url, self.pool, self.readers, self.directory.poke, self.openings.close_soon)
        self.verifier = Verifier(in_place=config.workers >= (os.cpu_count() or 1))
        self.package_signatures = PackageSignatures()
        self.live = Live(self.openings.holds)
        self.committer = Committer(url, sealer, self.wake.committed, self.live)
        self.admission = Admission(
            config.max_queue_bytes,
            config.max_queue_seconds,
            longest_wait(self.verifier.batcher, self.committer.batcher),
            self._rates(),
        )
        self.uploads = Admission(config.max_queue_bytes)
        handed = Handed()
        self.routes = Routes(self.pool)
        self.acknowledger = Acknowledger(
            url, sealer, self.directory, handed, self.readers, self.routes, self.wake.committed
        )
        self.signed = SignedAcknowledgements(self.readers, self.directory, self.verifier, handed)
        self.history = History(self.pool, self.directory, self.routes)
        self.mailboxes = Mailboxes(self.readers, self.routes, self.wake, self.acknowledger, handed, self.openings)
        self.blobs = Blobs(config.blobs)
        self.gate = Gate(self.directory)
        bounds = Bounds(config.pdf_max_bytes, config.pdf_seconds, config.pdf_memory_bytes)
        checks = Checks(self.pool, Pool(bounds, config.pdf_processes), lambda: self.directory.picture.revision)
        self.pdf_queue = PdfQueue(self.pool, self.blobs, checks, self.history, self.recorder, config.max_xml_bytes)
        self.pdf_signatures = PdfSignatures(self.blobs, checks, config.max_xml_bytes, self.pdf_queue.poke)
        retention = Retention(url, self.blobs, config.retention_months)
        self.catalogue = Catalogue(self.pool, Describer(self.blobs))
        self.chores = Chores(
            url,
            self.pool,
            self.acknowledger,
            self.history,
            self.blobs,
            retention,
            self.catalogue,
            self._certificate_chores(),
        )
        self.reporter = Reporter(
            self.pool,
            self.directory,
            self.gate,
            config.hub_name,
            self._gauge,
            self.live.endpoints,
            config.witnesses,
        )
        self.witnessing = Witnessing(url, self.pool, Log(self.pool), config.witnesses)
        for part in (
            self.wake,
            self.verifier,
            self.committer,
            self.acknowledger,
            self.recorder,
            self.openings,
            self.mailboxes,
            self.chores,
            self.pdf_queue,
            self.integrator,
            self.stamper,
            self.witnessing,
            self.reporter,
        ):
            part.start()
        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=config.stop_seconds, handle_signals=False
        )
        await self._runner.setup()
        self.links.start()

    async def _learn_keys(self) -> None:
        """The keys of all nodes: each has its own, and one may begin at any time."""
        self._hub_keys[:] = await public_keys(self.pool)
        self.hops.own_keys |= {key["kid"] for key in self._hub_keys}

    def _certificate_chores(self) -> tuple[Chore, ...]:
        config = self.config
        self.revocations = Revocations(
            self.pool, config.revocation_seconds, config.revocation_hosts, config.revocation
        )
        watch = Watch(self.pool)
        return (7030, REVOCATION_SECONDS, self.revocations.turn), (7031, WATCH_SECONDS, watch.turn)

    def _rates(self) -> Rates:
        config = self.config
        return Rates(
            config.rate_messages,
            config.rate_bytes,
            config.rate_seconds,
            1 / config.workers,
            lambda: self.directory.picture.limited,
        )

    def _gauge(self) -> dict[str, int]:
        return {
            "commit_queue": len(self.committer.batcher),
            "queue_bytes": self.admission.used,
            **{f"refused_{reason}": self._refused(reason) for reason in REASONS},
            "waiting_readers": self.wake.waiting - len(self.live),
            "streams": len(self.live),
            "accepted": self.committer.accepted,
            "ended": self.acknowledger.ended,
            "batches": self.committer.batcher.batches,
            "items": self.committer.batcher.items,
        }

    def _refused(self, reason: str) -> int:
        return self.admission.refused[reason] + self.uploads.refused[reason]

    def _application(self) -> web.Application:
        attachments = Attachments(self.pool, self.blobs)
        references = References(self.pool, self.routes)
        intake = Intake(
            self.pool,
            self.directory,
            self.admission,
            self.uploads,
            self.verifier,
            self.committer,
            self.history,
            references,
            Recalls(self.pool, self.acknowledger, self.openings, self.history, references, self.directory),
            self.config.max_message_bytes,
            self.package_signatures,
            self.hops,
            pdf_signatures=self.pdf_signatures,
            repeats=Repeats(self.pool),
        )
        finder = Finder(self.history, self.routes, self.mailboxes)
        accounts = self._account_door(finder)
        besides = self.besides = Besides(self.directory, self.hops, self.catalogue, self.routes)
        native = NativeDoor(
            self.config,
            self.gate,
            intake,
            self.mailboxes,
            self.acknowledger,
            finder,
            attachments,
            self.blobs,
            besides,
            self.signed,
        )
        self.streams = StreamDoor(
            self.config,
            self.gate,
            intake,
            self.mailboxes,
            self.acknowledger,
            self.wake,
            self.live,
            self.signed,
            besides,
        )
        teller = Teller(self.pool, self._sealer, self.directory, self.routes, intake, self.wake.committed)
        links = LinkDoor(
            self.config, self.gate, intake, self.blobs, self.directory, self.pool, teller, self._hub_keys
        )
        checks: dict[str, Callable[[], Awaitable[None]]] = {
            "database": self._check_database,
            "intake": self._check_intake,
        }
        if self._signer.slow:
            checks["key"] = self._check_key
        health = HealthDoor(
            self.gate,
            self.reporter,
            checks,
            lambda: public_keys(self.pool),
        )
        operations: list[Operation] = [
            *native.operations(),
            *accounts.operations(),
            *self.streams.operations(),
            *health.operations(),
            *links.operations(),
            *LogDoor(Log(self.pool), self.config.log_within_seconds).operations(),
            *self._proof_door(finder).operations(),
            *LogEventsDoor(self.gate, StoredEvents(self.pool)).operations(),
        ]
        document = orjson.dumps(msgspec.to_builtins(describe(operations, f"Lienthong ({self.config.hub_name})")))

        async def openapi(request: web.Request) -> web.Response:
            return json_response(document)

        app = web.Application(middlewares=[answer_problems], client_max_size=0)
        for operation in operations:
            app.router.add_route(operation.method, operation.route, operation.handler)
        app.router.add_get("/openapi.json", openapi)
        vault = Vault.load(self.config.secrets_key)
        mail = AxisMail(self.readers, self.routes, self.mailboxes, self.acknowledger)
        giver = AxisGiver(self.blobs, self.directory, self.config.max_xml_bytes)
        self.axis = self._axis_door(intake, vault, mail, giver)
        self.links = Links(
            Parts(
                self._url,
                self.pool,
                self.directory,
                vault,
                intake,
                self.mailboxes,
                mail,
                self.acknowledger,
                giver,
                self.blobs,
                attachments,
                teller,
                self.recorder,
                self.hops,
                self.config.hub_name,
                self._hub_keys,
                self.config.max_xml_bytes,
                self.config.max_attachment_bytes,
            )
        )
        self.axis.add_to(app)
        return app

    def _account_door(self, finder: Finder) -> AccountDoor:
        config, describer = self.config, Describer(self.blobs)
        return AccountDoor(
            self.gate,
            finder,
            self.history,
            States(self.pool, self.routes),
            Threads(self.pool, self.routes, self.directory, describer),
            describer,
            NativeGiver(self.pool, self.blobs, config.max_xml_bytes),
            AxisGiver(self.blobs, self.directory, config.max_xml_bytes),
            self.catalogue,
            self.routes,
            self.directory,
        )

    def _proof_door(self, finder: Finder) -> ProofDoor:
        proofs = Proofs(self.pool, self.history, self.routes, self.directory, self.blobs, self._signer)
        return ProofDoor(self.gate, finder, proofs, lambda: trusted(self.pool, self.config))

    def _axis_door(self, intake: Intake, vault: Vault, mail: AxisMail, giver: AxisGiver) -> AxisDoor:
        config, directory = self.config, self.directory
        return AxisDoor(
            config,
            Authenticator(directory, self.gate, vault, config.axis_clock_seconds),
            intake,
            mail,
            giver,
            AxisSent(self.pool, self.history, directory, self.blobs),
            AgencyLists(directory),
            Registrar(self.pool, directory, config.axis_registration),
            self.blobs,
            self.besides.repeated_by,
        )

    async def _check_database(self) -> None:
        """The database answers and has room for today's mail."""
        await self.pool.fetchval("select 1 from inbox where seq >= seq_floor(now()) limit 1")
        if not await self.pool.fetchval(
            "select to_regclass(to_char(now() at time zone 'UTC', '\"inbox_\"YYYYMM'))"
        ):
            raise Problem("store-unavailable")

    async def _check_key(self) -> None:
        """The token that holds the hub's key signs."""
        await elsewhere(lambda: self._signer.sign(b""))

    async def _check_intake(self) -> None:
        if self.admission.closed:
            raise Problem("stopping")
        if self.admission.delay(0, 0):  # as for an endpoint that has sent nothing yet
            raise Problem("overloaded")

    def serve(self, listener: socket.socket, tls: ssl.SSLContext | None, counts: Counts | None = None) -> None:
        """Answer requests on a bound socket. `counts` is shared with whoever else accepts from it."""
        assert self._runner is not None and self._runner.server is not None
        manager, loop, shared = self._runner.server, asyncio.get_running_loop(), counts or Counts()
        seconds = self.config.request_seconds

        def ended() -> None:
            shared.change(-1)

        def connection() -> GuardedHandler:
            return GuardedHandler(
                manager,
                seconds,
                ended,
                loop=loop,
                access_log=None,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            )

        acceptor = Acceptor(listener, connection, shared, tls, seconds)
        acceptor.start()
        self._acceptors.append(acceptor)

    async def stop(self) -> None:
        """Refuse new work, finish what was taken, let readers go, disconnect."""
        for acceptor in self._acceptors:
            acceptor.close()
        await self.links.stop()
        self.admission.closed = self.uploads.closed = True
        self.mailboxes.close()
        await self.streams.drain()
        if self._runner is not None:
            # Handlers still under way get their answers: the batches that they wait for are flushed.
            await self._runner.cleanup()
        await self.committer.stop()
        await self.mailboxes.stop()
        await self.openings.stop()
        await self.chores.stop()
        await self.acknowledger.stop()
        await self.pdf_queue.stop()
        await self.pdf_signatures.stop()
        await self.recorder.stop()
        await self.integrator.stop()
        await self.stamper.stop()
        await self.witnessing.stop()
        await self.verifier.stop()
        self.package_signatures.stop()
        await self.reporter.stop()
        await self.wake.stop()
        if self._follower is not None:
            await tasks.end([self._follower])
        for pool in (self.readers, self.pool):
            try:
                async with asyncio.timeout(5):
                    await pool.close()
            except TimeoutError:
                pool.terminate()


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The server's TLS settings, or None for plain HTTP."""
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_cert, config.tls_key)
    if config.tls_client_ca:
        context.load_verify_locations(config.tls_client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
