"""The door for proofs: a message's proof file, whom to trust for verifying it, and the page that verifies it.

The page is one file with its script and its sentences inside, so that it can be saved and used without a network,
and its policy lets nothing else in: no script but this one (by its digest), no connection to anywhere.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

import orjson
from aiohttp import web

from hub.doors.find import Finder, is_withdrawn
from hub.doors.http import SECURITY_HEADERS, Gate, json_response
from hub.doors.models import MessageId
from hub.doors.operations import Answer, Operation
from hub.evidence.proof import Proofs
from protocol import proof_words
from protocol.proof import MEDIA_TYPE, Proof
from protocol.proof_trust import Trust, TrustFile, write_trust

WORDS = ("WORDS", "LIMITS", "KINDS", "PDF", "DEEDS", "STEPS", "STATUSES", "VERDICTS")
HTML = "text/html"


def words() -> bytes:
    """The sentences of a verification, as the page's script takes them."""
    return orjson.dumps({name: getattr(proof_words, name) for name in WORDS})


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def page() -> tuple[bytes, str]:
    """The page, and the policy (CSP) that it is served with and says itself."""
    folder = files("hub.doors")
    html = (folder / "verify.html").read_text(encoding="utf-8")
    script = "\n" + (folder / "verify.js").read_text(encoding="utf-8")
    style = html.partition("<style>")[2].partition("</style>")[0]
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    # `<` in the sentences would be able to end the element that holds them.
    sentences = words().decode().replace("<", "\\u003c")
    html = html.replace("@POLICY@", policy).replace("@WORDS@", sentences)
    return html.replace("@SCRIPT@", script).encode(), policy + "; frame-ancestors 'none'"


class ProofDoor:
    """Gives proofs to those who may see a message, and to everybody what verifies them."""

    def __init__(
        self, gate: Gate, finder: Finder, proofs: Proofs, trusted: Callable[[], Awaitable[Trust]]
    ) -> None:
        self._gate = gate
        self._finder = finder
        self._proofs = proofs
        self._trusted = trusted
        self._turn = asyncio.Lock()  # whoever asks for it needs no credential: one at a time

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/v1/messages/{id}/proof",
                "All that proves what became of it, in one file",
                self.message_proof,
                {
                    200: Answer(
                        "The proof (docs/proofs.md); `lienthong verify` checks it without a hub",
                        None,
                        (MEDIA_TYPE,),
                        {"Content-Disposition": "A name for the file"},
                        {MEDIA_TYPE: Proof},
                    )
                },
                (404,),
                path_parameters={"id": MessageId},
                tag="messages",
                description="A recipient's copy tells of its own delivery alone and does not list the others.",
            ),
            Operation(
                "GET",
                "/v1/hub/trust",
                "Keys of the hub, its log and its witnesses, and authorities, for verifying proofs",
                self.hub_trust,
                {200: Answer("A `trust.json` (docs/proofs.md)", TrustFile)},
                tag="health",
                open=True,
                description="Taken from the hub it proves nothing against the hub: compare it with what came to "
                "you by another way.",
            ),
            Operation(
                "GET",
                "/verify",
                "A page that verifies a proof in the browser, without a server",
                self.verify_page,
                {200: Answer("The page; it can be saved and used without a network", None, (HTML,))},
                tag="health",
                open=True,
            ),
        ]

    async def message_proof(self, request: web.Request) -> web.Response:
        caller = self._gate.caller(request)
        async with self._finder.turns.of(caller.endpoint):
            row = await self._finder.message(request, caller)
            # A recipient is told of its own delivery; the sender and administrators of all.
            own = caller.endpoint != row["endpoint"] and not caller.is_administrator
            withdrawn = is_withdrawn(row, caller) and not caller.is_administrator
            body = await self._proofs.of(row, caller.name if own else None, withdrawn=withdrawn)
        name = f'attachment; filename="{row["id"]}.proof"'
        headers = SECURITY_HEADERS | {"Content-Disposition": name}
        return web.Response(body=body, content_type=MEDIA_TYPE, headers=headers)

    async def hub_trust(self, request: web.Request) -> web.Response:
        async with self._turn:
            trust = await self._trusted()
        return json_response(write_trust(trust))

    async def verify_page(self, request: web.Request) -> web.Response:
        body, policy = page()
        headers = {
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return web.Response(body=body, content_type=HTML, charset="utf-8", headers=headers)
