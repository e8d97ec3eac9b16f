"""The second act: the province's hub is linked with the nation's, and a document goes from one to the other.

The Government Office is a system of the national axis's interface at the nation's hub; the commune of Đại Sơn
speaks the hub's own interface at the province's. Each believes that the other speaks as it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson

from hub.demo.agencies import AGENCIES, BY_CODE, GOVERNMENT_OFFICE, PROVINCE, Party
from hub.demo.axis import AxisSystem
from hub.demo.morning import DATE
from hub.demo.node import DemoError, Node
from hub.demo.papers import EdxmlParty, edxml_document, edxml_status, pdf
from hub.demo.show import Show
from hub.directory import axis, change, links
from hub.directory.change import AgencyRow
from hub.directory.links import NewLink
from hub.directory.vault import Vault
from hub.store.pool import connect
from protocol import edxml
from protocol.client import Document, HubClient
from protocol.client.hub import Entry
from protocol.evidence import Receipt, verify_receipt
from protocol.message import Person, Promulgation, Reference
from protocol.signature import from_jwk
from protocol.status import VIETNAMESE, State

LINK = "truc-quoc-gia"
SYSTEM = "truc-yen-bai"
OFFICE = "vpcp"
COMMUNE = AGENCIES["dai-son"]
SLASHED = DATE.replace("-", "/")
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 40.0
LOOK_SECONDS = 0.05
DECREE, REPLY, STRAY = "10327/VPCP-KSTT", "16/BC-UBND", "17/CV-UBND"
STATES = (State.ARRIVED, State.TAKEN_IN, State.FINISHED)
NOBODY = "000.00.00.G99"
MINISTRIES = {
    "000.00.00.G01": "Bộ Công an",
    "000.00.00.G02": "Bộ Công Thương",
    "000.00.00.G03": "Bộ Giáo dục và Đào tạo",
    "000.00.00.G09": "Bộ Nội vụ",
    "000.00.00.G12": "Bộ Tài chính",
    "000.00.00.G14": "Bộ Thông tin và Truyền thông",
    "000.00.00.G15": "Bộ Tư pháp",
    "000.00.00.G18": "Bộ Y tế",
    "000.00.00.G24": "Bảo hiểm xã hội Việt Nam",
}
"""Bodies that the nation's hub knows, and the province's learns from it."""


@dataclass
class Side:
    """One hub, seen by those connected to it."""

    name: str
    url: str
    clients: dict[str, HubClient] = field(default_factory=dict)
    sent: list[tuple[str, str, str]] = field(default_factory=list)
    """Every message that it accepted: its id, the endpoint that submitted it, what it is."""


@dataclass
class Scene:
    """What the second act has to do with."""

    nation: Side
    province: Side
    office: AxisSystem
    commune: HubClient
    show: Show
    folder: Path
    at: str = "11:30"

    def tell(self, text: str, style: str = "dim") -> None:
        self.show.event(self.at, text, style)


async def play(
    nation: Node,
    province: Node,
    parties: dict[str, Party],
    folder: Path,
    show: Show,
    known: Callable[[str, str], Awaitable[None]],
) -> dict[str, Any]:
    """Link the hubs and play it; files go to `folder`. Raises DemoError when something does not add up.

    Returns what `--json` writes of it.
    """
    show.heading("Two levels: the Government Office moves to the nation's hub")
    show.say(
        f"A second hub runs at {nation.url}, with a PostgreSQL of its own. {GOVERNMENT_OFFICE.name} is connected "
        f"to it through the national axis's interface, {COMMUNE.short} still to the province's hub, natively. "
        f"The province's hub is linked with the nation's, which knows it as one system, {SYSTEM}."
    )
    secrets, tokens = await _make_nation(nation)
    tokens[LINK], operator = await _link(province, nation.url, secrets[SYSTEM])
    await known(province.url, tokens[LINK])
    await known(nation.url, tokens[SYSTEM])
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def client(url: str, token: str, **options: Any) -> HubClient:
            return await stack.enter_async_context(HubClient(url, token, **options))

        key = parties[COMMUNE.endpoint].key
        commune = await client(province.url, parties[COMMUNE.endpoint].token, key=key)
        scene = Scene(
            Side("the nation's hub", nation.url),
            Side("the province's hub", province.url, {COMMUNE.endpoint: commune}),
            AxisSystem(session, f"{nation.url}/vxp", "vpcp.01", secrets[OFFICE]),
            commune,
            show,
            folder,
        )
        scene.province.clients[LINK] = await client(province.url, tokens[LINK])
        for name in (OFFICE, SYSTEM):
            scene.nation.clients[name] = await client(nation.url, tokens[name])
        await _agencies(scene, session, operator)
        await _down(scene)
        await _up(scene)
        await _astray(scene)
        return await _reckon(scene, session)


# -- making the two levels ------------------------------------------------------------------------


async def _make_nation(nation: Node) -> tuple[dict[str, str], dict[str, str]]:
    """Register everybody at the nation's hub. Secrets of the systems, and tokens, by endpoint."""
    vault = Vault.load(nation.hub_dir / "hub-key.pem")
    connection = await connect(nation.database_url, "demo")
    try:
        async with connection.transaction():
            for code, name in MINISTRIES.items():
                await change.add_agency(connection, AgencyRow(code, name))
            for agency in BY_CODE.values():
                await change.add_agency(connection, AgencyRow(agency.code, agency.name, aliases=(agency.alias,)))
            below = [code for code in BY_CODE if code != GOVERNMENT_OFFICE.code]
            await change.add_endpoint(connection, OFFICE, [GOVERNMENT_OFFICE.code])
            await change.add_endpoint(connection, SYSTEM, below)
            secrets = {
                OFFICE: await axis.add_system(connection, vault, "vpcp.01", OFFICE, 7),
                SYSTEM: await axis.add_system(connection, vault, SYSTEM, SYSTEM, 7),
            }
            tokens = {name: await change.issue_token(connection, endpoint=name) for name in (OFFICE, SYSTEM)}
    finally:
        await connection.close()
    return secrets, tokens


async def _link(province: Node, url: str, secret: str) -> tuple[str, str]:
    """Link the province's hub, as ``lienthong link add`` does. The link's token, and one of an operator."""
    vault = Vault.load(province.hub_dir / "hub-key.pem")
    link = NewLink(LINK, f"{url}/vxp", SYSTEM, (PROVINCE.code,), default=True, poll_seconds=POLL_SECONDS)
    connection = await connect(province.database_url, "demo")
    try:
        async with connection.transaction():
            await links.add_link(connection, vault, link, secret)
            # Until now the Government Office was connected here; now it lies beyond the link.
            await change.assign(connection, LINK, [GOVERNMENT_OFFICE.code])
            operator = await change.issue_token(connection, role="operator", label="demo")
            return await change.issue_token(connection, endpoint=LINK), operator
    finally:
        await connection.close()


async def _agencies(scene: Scene, session: aiohttp.ClientSession, operator: str) -> None:
    """The directory beyond the link comes down by itself."""

    async def synced() -> bool:
        headers = {"Authorization": f"Bearer {operator}"}
        async with session.get(f"{scene.province.url}/v1/status", headers=headers) as response:
            return any("synced_at" in link for link in (await response.json())["links"])

    await _wait("the nation's list of agencies", synced)
    listed = MINISTRIES | {GOVERNMENT_OFFICE.code: GOVERNMENT_OFFICE.name}
    scene.tell(
        f"the province's hub fetches the nation's list of agencies: {len(listed)} lie beyond the link, its own "
        f"{len(BY_CODE) - 1} stay as they are",
        "cyan",
    )


# -- the scene ------------------------------------------------------------------------------------


async def _wait(what: str, look: Callable[[], Awaitable[Any]]) -> Any:
    """What `look` finds, as soon as it finds something."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := await look()):  # noqa: ASYNC110 - nobody tells when it is through both hubs
                await asyncio.sleep(LOOK_SECONDS)
            return found
    except TimeoutError:
        raise DemoError(f"between the two hubs: {what} did not come within {PATIENCE_SECONDS:.0f} s") from None


async def _mail(scene: Scene, what: str, count: int = 1) -> list[Entry]:
    """The commune's next `count` entries, acknowledged."""
    taken: list[Entry] = []

    async def look() -> bool:
        entries, _ = await scene.commune.read(10, 2.0)
        if entries:
            await scene.commune.acknowledge(*entries)
        taken.extend(entries)
        return len(taken) >= count

    await _wait(what, look)
    return taken


async def _taken(scene: Scene, kind: str, what: str, count: int = 1) -> list[edxml.Header]:
    """What the Government Office's system takes in, until it is `count` messages."""
    taken: list[tuple[str, bytes]] = []

    async def look() -> bool:
        taken.extend(await scene.office.take(kind))
        return len(taken) >= count

    await _wait(what, look)
    scene.nation.sent += [(name, SYSTEM, what) for name, _ in taken]
    return [edxml.read(raw) for _, raw in taken]


def _require(right: bool, what: str) -> None:
    if not right:
        raise DemoError(f"between the two hubs: {what}")


async def _down(scene: Scene) -> None:
    """From the Government Office to the commune, and its states back."""
    subject = "V/v báo cáo tình hình giải quyết thủ tục hành chính tại cấp xã"
    office, commune = GOVERNMENT_OFFICE, COMMUNE
    file = pdf(DECREE, subject, 96 << 10)
    raw = edxml_document(
        EdxmlParty(office.code, office.name),
        EdxmlParty(commune.code, commune.name),
        DECREE,
        SLASHED,
        "11:31",
        "Công văn",
        subject,
        (office.position, office.signer),
        3,
        file,
    )
    name = await scene.office.send(raw, office.code)
    scene.nation.sent.append((name, OFFICE, DECREE))
    scene.at = "11:31"
    scene.show.document(
        "11:31", "express", DECREE, f"{office.short} → {commune.short}", subject, "by the axis's SDK"
    )
    (entry,) = await _mail(scene, f"{DECREE} at {commune.short}")
    _require(await scene.commune.fetch(entry) == raw, f"{DECREE} came altered")
    scene.province.sent.append((entry.id, LINK, DECREE))
    scene.tell(f"{commune.short} reads it from the province's hub, byte for byte as it was sent")
    about = Reference(id=edxml.read(raw).document_id, agency=office.code, code=DECREE, date=DATE)
    for state in STATES:
        await _state(scene, about, state)
    headers = await _taken(scene, "status", "states of the commune", len(STATES))
    _require([header.status_code for header in headers] == list(STATES), "the states came back in another order")
    _require({header.document_id for header in headers} == {about.id}, "the states speak of another document")
    scene.tell(f"{office.short} has all {len(STATES)} states, in edXML", "green")


async def _state(scene: Scene, about: Reference, state: State) -> None:
    document = Document(
        id=f"{state} {about.id}",
        sender=COMMUNE.code,
        to=(GOVERNMENT_OFFICE.code,),
        subject=VIETNAMESE[state],
        kind="status",
        status=state,
        response_for=(about,),
    )
    sent = await scene.commune.submit(scene.commune.sign(document))
    scene.province.sent.append((sent.id, COMMUNE.endpoint, f"state {state}"))
    scene.tell(f"{COMMUNE.short} on {DECREE}: {state} {VIETNAMESE[state]} (natively)")


async def _letter(scene: Scene, symbol: str, to: str, subject: str) -> None:
    """A native document of the commune's with a file."""
    path = scene.folder / f"{symbol.replace('/', '_')}.pdf"
    await asyncio.to_thread(path.write_bytes, pdf(symbol, subject, 48 << 10))
    attachment = await scene.commune.upload(path, "application/pdf", path.name)
    document = Document(
        id=f"{COMMUNE.code},{SLASHED},{symbol}",
        sender=COMMUNE.code,
        to=(to,),
        subject=subject,
        code=symbol,
        type="Báo cáo",
        promulgation=Promulgation(place="Đại Sơn", date=DATE),
        signer=Person(name=COMMUNE.signer, position=COMMUNE.position),
        attachments=(attachment,),
    )
    sent = await scene.commune.submit(scene.commune.sign(document))
    scene.province.sent.append((sent.id, COMMUNE.endpoint, symbol))


async def _up(scene: Scene) -> None:
    """The commune answers, and the Government Office reports that it has it."""
    subject = "Báo cáo tình hình giải quyết thủ tục hành chính quý III năm 2017"
    await _letter(scene, REPLY, GOVERNMENT_OFFICE.code, subject)
    route = f"{COMMUNE.short} → {GOVERNMENT_OFFICE.short}"
    scene.at = "11:38"
    scene.show.document("11:38", "normal", REPLY, route, subject, "1 file, natively")
    (header,) = await _taken(scene, "edoc", REPLY)
    _require((header.subject, header.code) == (subject, REPLY), f"{REPLY} came altered")
    scene.tell(f"{GOVERNMENT_OFFICE.short} gets it as edXML, its file inside, marked as converted")
    office = EdxmlParty(GOVERNMENT_OFFICE.code, GOVERNMENT_OFFICE.name)
    state = State.TAKEN_IN
    raw = edxml_status(office, COMMUNE.code, REPLY, SLASHED, header.document_id, state, VIETNAMESE[state], "11:40")
    name = await scene.office.send(raw, GOVERNMENT_OFFICE.code, "status")
    scene.nation.sent.append((name, OFFICE, f"state {state} of {REPLY}"))
    (entry,) = await _mail(scene, f"the state of {REPLY}")
    _require(await scene.commune.fetch(entry) == raw, f"the state of {REPLY} came altered")
    scene.province.sent.append((entry.id, LINK, f"state {state} of {REPLY}"))
    scene.at = "11:40"
    scene.tell(f"{COMMUNE.short} reads on {REPLY}: {state} {VIETNAMESE[state]}", "green")


async def _astray(scene: Scene) -> None:
    """A code that nobody knows goes up, comes to nothing there, and its sender is told."""
    subject = "V/v đề nghị hướng dẫn"
    await _letter(scene, STRAY, NOBODY, subject)
    scene.at = "11:42"
    scene.show.document("11:42", "normal", STRAY, f"{COMMUNE.short} → {NOBODY}", subject, "which nobody knows")
    (entry,) = await _mail(scene, f"the refusal of {STRAY}")
    _require(entry.receipt is not None, f"{STRAY} was not refused")
    assert entry.receipt is not None
    event = orjson.loads(entry.receipt.event)
    _require(event["event"] == "refused", f"{STRAY} was {event['event']}, not refused")
    scene.tell(f"the nation's hub does not know it; {COMMUNE.short} is told so: “{event['reason']}”", "red")


# -- the reckoning --------------------------------------------------------------------------------


async def _reckon(scene: Scene, session: aiohttp.ClientSession) -> dict[str, Any]:
    """Ask both hubs what became of everything, and verify each receipt with that hub's public key."""
    figures: dict[str, Any] = {}
    for side in (scene.province, scene.nation):
        await _wait(f"an empty mailbox at {side.name}", partial(_is_empty, session, side.url))
        figures[side.name] = await _verify(scene, side)
    crossed = len(scene.nation.sent)
    refused = figures[scene.province.name]["refused"]
    _require(refused == 1, f"{refused} messages were refused, not one")
    _require(
        len(scene.province.sent) == crossed + refused,
        f"the province's hub has {len(scene.province.sent)} messages of this act, the nation's {crossed}",
    )
    show = scene.show
    show.heading(f"Both hubs add up: {crossed} messages crossed the link, each once; 1 was refused")
    for name, counts in figures.items():
        show.say(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()) + ", all proven.")
    return {"crossed": crossed, "hubs": figures}


async def _is_empty(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.get(f"{url}/v1/status") as response:
        lanes = (await response.json())["lanes"]
    return not any(lane["waiting"] for lane in lanes.values())


async def _verify(scene: Scene, side: Side) -> dict[str, int]:
    """The receipts of one hub's messages, by kind. Raises DemoError."""
    any_client = next(iter(side.clients.values()))
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await any_client.hub_keys()}
    found: Counter[str] = Counter()
    for message, endpoint, what in side.sent:
        timeline = await side.clients[endpoint].events(message)
        (delivery,) = timeline["deliveries"]
        _require("receipt" in delivery, f"{what} is {delivery['state']} at {side.name}")
        for kind, receipt in (("accepted", timeline["accepted"]), (delivery["state"], delivery["receipt"])):
            event = verify_receipt(msgspec.convert(receipt, Receipt), keys.get).event
            _require((event["event"], event["message"]) == (kind, message), f"a receipt of {what} is of another")
            found[kind] += 1
    return dict(found)
