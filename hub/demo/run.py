"""The demo from beginning to end: a hub, its agencies, a morning, four bad submissions, the reckoning, and then
a second hub above the first."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from hub.ca.authority import TRIAL
from hub.cli.output import local_time
from hub.demo.agencies import AGENCIES, BY_CODE, GOVERNMENT_OFFICE, PROVINCE, THIRTY, Party, register
from hub.demo.ledger import ENDINGS, EXAMPLE, Audit, Ledger, audit
from hub.demo.morning import DARK, papers
from hub.demo.nation import play as play_nation
from hub.demo.node import DemoError, Node, Place
from hub.demo.play import Play
from hub.demo.show import Show
from hub.demo.trial import CARELESS, CERTIFIED, HOST, Trial, learned
from hub.demo.witnesses import Witnesses
from hub.directory import change
from hub.store.pool import connect
from protocol.client import Document, HubClient, Problem, new_id
from protocol.evidence import Receipt
from protocol.message import seal
from protocol.signature import Signer, b64url, from_jwk, parse

PATIENCE_SECONDS = 60.0
PROBES = 16
PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the demo runs. `seconds`: how long the four hours of the morning take."""

    data_dir: Path
    workers: int = 2
    seconds: float = 12.0
    keep: bool = False


async def run(options: Options, show: Show) -> dict[str, Any]:
    """Run the demo. Returns what `--json` writes. Raises DemoError when something does not add up.

    Whatever happens, everything it started is stopped, and its directory is gone unless it is to be kept.
    """
    show.heading("Lienthong: a morning in Yên Bái, Monday 2 October 2017")
    show.say(
        "Public agencies send each other signed documents through a hub. You will see a real hub with its own "
        f"PostgreSQL, {len(AGENCIES)} systems connected to it, and what they send between 7:30 and 11:30."
    )
    show.say("It starts now; the first time takes a few seconds.")
    try:
        with Place(options.data_dir, options.keep) as place:
            async with contextlib.AsyncExitStack() as stack:
                # One after the other: the nation's hub is not needed before the morning is over.
                trial = await stack.enter_async_context(Trial(place.root / "ca"))
                name = "Trục liên thông văn bản tỉnh Yên Bái"
                witnesses = await stack.enter_async_context(Witnesses(place.root))
                extra = ("--revocation-hosts", HOST, *witnesses.options)
                node = Node(place, options.workers, place.hub_dirs[0], name, *extra)
                await stack.enter_async_context(node)
                nation = Node(place, 1, place.hub_dirs[1], "Trục liên thông văn bản quốc gia")
                starting = asyncio.create_task(nation.__aenter__())
                try:
                    parties, summary = await _with_hub(node, place, trial, witnesses, options, show)
                finally:
                    with contextlib.suppress(DemoError):
                        await starting
                        stack.push_async_exit(nation)
                starting.result()
                second = await play_nation(nation, node, parties, place.root / "outbox", show, _known)
                return _end(summary | {"nation": second}, options, show)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first thing that went wrong, of several at once."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _with_hub(
    node: Node, place: Place, trial: Trial, witnesses: Witnesses, options: Options, show: Show
) -> tuple[dict[str, Party], dict[str, Any]]:
    """Play the morning. Everybody who is connected, and the morning's figures."""
    show.say(f"The hub answers at {node.url}: {options.workers} processes, data in {place.root / 'hub'}.")
    connection = await connect(node.database_url, "demo")
    try:
        await trial.trusted(connection)
        parties = await register(connection, trial.certificates)
    finally:
        await connection.close()
    await _known(node.url, parties[DARK].token)
    await witnesses.follow(node.url, show)
    show.say(
        f"Registered {len(BY_CODE)} agencies and {len(parties)} endpoints, each with its own key and token, and a "
        f"group of {len(THIRTY)}. All of them now wait for mail (long poll), but for {AGENCIES[DARK].short}, "
        "which has no power."
    )
    show.say(
        f"The keys of {' and '.join(agency.short for agency in CERTIFIED)} came in certificates of an authority "
        f"that the hub trusts: one for trials, “{TRIAL}”. Their receipts say what was known of revocation."
    )
    show.say(
        "Below, a line is a document that is on disk at the hub, and ↳ is what followed. Recipients report what "
        "they did: 01 arrived, 03 taken in, 05 in progress, 06 finished."
    )
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            endpoint: await stack.enter_async_context(HubClient(node.url, party.token, key=party.key))
            for endpoint, party in parties.items()
        }
        hub_keys = {jwk["kid"]: from_jwk(jwk) for jwk in await clients[PROVINCE.endpoint].hub_keys()}
        play = Play(parties, clients, hub_keys.get, papers(), place.root, show, options.seconds)
        show.heading("7:30 to 11:30: time, urgency, symbol, sender → recipients, subject")
        await play.run(PATIENCE_SECONDS)
        await _bad_submissions(parties, clients, play.ledger, show)
        await _revoked(node, trial, parties, clients, play.ledger, show)
        show.heading("What became of everything")
        result = await audit(play.ledger, clients, hub_keys.get)
        result.wrong += await _still_waiting(node.url)
        summary = _conclude(play.ledger, result, show)
        return parties, summary | {"log": await witnesses.check(node.url, show)}


async def _known(url: str, token: str) -> None:
    """Return once every process of the hub knows the endpoints.

    A change reaches all of them within two seconds. The system spreads new connections over the processes, so
    enough of them in a row meet each.
    """
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    met = 0
    async with asyncio.timeout(PROBE_SECONDS), aiohttp.ClientSession() as session:
        while met < PROBES:
            async with session.get(f"{url}/v1/mailbox", headers=headers) as response:
                met = met + 1 if response.status == 200 else 0


async def _still_waiting(url: str) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/status") as response:
        lanes = (await response.json())["lanes"]
    return [
        f"{lane['waiting']} deliveries still wait in lane {name}"
        for name, lane in lanes.items()
        if lane["waiting"]
    ]


# -- what the hub must not take -------------------------------------------------------------------


def _altered(message: bytes) -> bytes:
    """A signed message in which somebody raised a sum of money afterwards."""
    header, _, signature = message.split(b".")
    text = parse(message).payload.replace("120 triệu".encode(), "920 triệu".encode())
    return b".".join((header, b64url(text).encode(), signature))


async def _bad_submissions(
    parties: dict[str, Party], clients: dict[str, HubClient], ledger: Ledger, show: Show
) -> None:
    """Submit three messages that must be refused. Raises DemoError when one is not."""
    finance, industry = AGENCIES["so-tai-chinh"], AGENCIES["so-cong-thuong"]
    letter = Document(
        id=new_id(), sender=finance.code, to=(PROVINCE.code,), subject="Tờ trình xin tạm ứng 120 triệu đồng"
    )
    stranger = Document(
        id=new_id(), sender=PROVINCE.code, to=(GOVERNMENT_OFFICE.code,), subject="Tờ trình mạo danh UBND tỉnh"
    )
    nowhere = Document(
        id=new_id(), sender=finance.code, to=(PROVINCE.code, "000.00.99.H63"), subject="V/v gửi Sở Du lịch"
    )
    finance_signs = Signer(parties[finance.endpoint].key)
    cases = (
        (
            f"{finance.name} signs a letter; on its way somebody turns 120 million đồng into 920:",
            finance.endpoint,
            _altered(seal(letter, finance_signs)),
            "bad-signature",
        ),
        (
            f"{industry.name} sends a letter in the name of {PROVINCE.short}:",
            industry.endpoint,
            seal(stranger, Signer(parties[industry.endpoint].key)),
            "from-not-yours",
        ),
        (
            f"{finance.name} writes to an agency that nobody knows:",
            finance.endpoint,
            seal(nowhere, finance_signs),
            "recipient-unknown",
        ),
    )
    show.heading("Four submissions that the hub must not take")
    for what, endpoint, message, expected in cases:
        await _refuse(what, endpoint, message, expected, clients, ledger, show)


async def _refuse(
    what: str,
    endpoint: str,
    message: bytes,
    expected: str,
    clients: dict[str, HubClient],
    ledger: Ledger,
    show: Show,
) -> None:
    try:
        sent = await clients[endpoint].submit(message)
    except Problem as problem:
        if problem.code != expected:
            raise DemoError(f"a bad submission was refused as {problem.code}, not as {expected}") from None
        ledger.rejections.append((msgspec.convert(problem.extra["receipt"], Receipt), message))
        show.refused(
            what, f"{problem.status} {problem.code}", problem.detail, "with a sealed receipt of the rejection"
        )
    else:
        raise DemoError(f"the hub accepted as {sent.id} what it had to refuse ({expected})")


async def _revoked(
    node: Node,
    trial: Trial,
    parties: dict[str, Party],
    clients: dict[str, HubClient],
    ledger: Ledger,
    show: Show,
) -> None:
    """A key is stolen, its certificate revoked, and what the thief signs refused. Raises DemoError otherwise."""
    thief = parties[CARELESS.endpoint]
    connection = await connect(node.database_url, "demo")
    try:
        operator = await change.issue_token(connection, role="operator", label="demo")
        trial.revoke()
        await learned(connection, node.url, operator, PATIENCE_SECONDS)
        # A change after that one: who knows it knows of the revocation too.
        token = await change.issue_token(connection, endpoint=CARELESS.endpoint)
    finally:
        await connection.close()
    await _known(node.url, token)
    stolen = Document(id=new_id(), sender=CARELESS.code, to=(PROVINCE.code,), subject="Đề nghị chuyển khoản gấp")
    what = f"The key of {CARELESS.name} is stolen, and its certificate revoked; the thief signs a letter:"
    message = seal(stolen, Signer(thief.key))
    await _refuse(what, CARELESS.endpoint, message, "certificate-revoked", clients, ledger, show)


# -- the reckoning --------------------------------------------------------------------------------


def _conclude(ledger: Ledger, result: Audit, show: Show) -> dict[str, Any]:
    rows = _rows(ledger, result)
    show.table(("Endpoint", "sent", "received", *ENDINGS), [(name, *figures) for name, figures in rows])
    show.heading("Receipts, each verified offline with the hub's public key alone")
    kinds = ("accepted", *ENDINGS, "rejected")
    counts = [(kind, result.receipts[kind]) for kind in kinds]
    show.table(("Event", "receipts"), [*counts, ("all", result.receipts.total())])
    for proof in result.story:
        event, sealed = proof.event, local_time(proof.sealed_at)
        word = "from" if event["event"] == "accepted" else "by"
        show.say(
            f"{EXAMPLE}, SHA-256 {event['sha256'][:12]}…: {event['event']} {word} {event['endpoint']}, "
            f"sealed at {sealed} (UTC+7)."
        )
        if revocation := event.get("signer", {}).get("revocation"):
            asked = local_time(revocation["answered_at"]) if "answered_at" in revocation else "never"
            show.say(f"    Its signer's certificate: {revocation['status']}; its authority last said so: {asked}.")
    wrong = result.wrong + _sums(ledger, result)
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DemoError(f"{len(wrong)} things do not add up: {'; '.join(wrong[:5])}{more}")
    deliveries = sum(len(sent.to) for sent in ledger.sent.values())
    ended = Counter(ledger.ended.values())
    show.heading(f"Everything adds up: {len(ledger.sent)} messages, {deliveries} deliveries")
    show.say(
        f"{deliveries} deliveries = {ended['acknowledged']} acknowledged + {ended['refused']} refused + "
        f"{ended['expired']} expired. Nothing was lost, nothing came twice, nothing waits."
    )
    return {
        "messages": len(ledger.sent),
        "deliveries": deliveries,
        "ended": {ending: ended[ending] for ending in ENDINGS},
        "rejected": len(ledger.rejections),
        "receipts_verified": {kind: count for kind, count in counts},
        "endpoints": {
            name: dict(zip(("sent", "received", *ENDINGS), figures, strict=True)) for name, figures in rows
        },
    }


def _end(summary: dict[str, Any], options: Options, show: Show) -> dict[str, Any]:
    if options.keep:
        show.say(f"The hubs' data is kept. Look around: lienthong serve --data-dir {options.data_dir / 'hub'}")
    show.say("Next: README.md shows how to send and receive a first document by hand.")
    return summary


def _rows(ledger: Ledger, result: Audit) -> list[tuple[str, tuple[int, ...]]]:
    """Figures by endpoint, and their sum: sent and received by the parties, endings by the hub."""
    sent = Counter(message.endpoint for message in ledger.sent.values())
    received: Counter[str] = Counter()
    for (_, endpoint), times in ledger.received.items():
        received[endpoint] += times
    rows = [
        (name, (sent[name], received[name], *(result.endings[name, ending] for ending in ENDINGS)))
        for name in AGENCIES
    ]
    total = tuple(sum(column) for column in zip(*(figures for _, figures in rows), strict=True))
    return [*rows, ("all", total)]


def _sums(ledger: Ledger, result: Audit) -> list[str]:
    """What is wrong with the sums, if anything: every delivery ends once, every ending has its receipt."""
    deliveries = sum(len(sent.to) for sent in ledger.sent.values())
    endings = result.endings.total()
    receipts = sum(result.receipts[ending] for ending in ENDINGS)
    wrong = []
    if not deliveries == endings == receipts == len(ledger.ended):
        wrong.append(
            f"{deliveries} deliveries were due, the parties ended {len(ledger.ended)}, the hub knows of {endings} "
            f"and proves {receipts}"
        )
    if result.receipts["accepted"] != len(ledger.sent):
        wrong.append(f"{len(ledger.sent)} messages were accepted, {result.receipts['accepted']} receipts prove it")
    if ledger.received.total() != deliveries - Counter(ledger.ended.values())["expired"]:
        wrong.append(f"{ledger.received.total()} entries were received, of {deliveries} deliveries due")
    return wrong
