"""``lienthong axis``: what an operator does for systems that come with the axis's SDK."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Any

import aiohttp

from tests.support import command
from tests.support.axis_parties import paper
from tests.support.axis_sdk import Sdk, SdkError
from tests.support.command import Lienthong, eventually
from tests.support.parties import PROVINCE, VAN_YEN

folder = command.folder
prepared = command.prepared
lienthong = command.lienthong

NEW = "000.00.55.H63"


def ask(lienthong: Lienthong, system_id: str, secret: str, call: Callable[[Sdk], Awaitable[Any]]) -> Any:
    """What a system gets for a call, or the code it fails with."""

    async def go() -> Any:
        async with aiohttp.ClientSession() as session:
            try:
                return await call(Sdk(session, f"{lienthong.environment['LIENTHONG_URL']}/vxp", system_id, secret))
            except SdkError as error:
                return error.code

    return asyncio.run(go())


def test_from_adding_a_system_to_its_first_document(lienthong: Lienthong) -> None:
    """Everything that docs/connecting-with-the-axis-sdk.md asks of an operator."""
    made = lienthong.json("axis", "add", "yb.tinh", "--endpoint", "tinh")
    assert (made["system_id"], made["endpoint"], made["utc_offset"]) == ("yb.tinh", "tinh", 7)
    written = lienthong("axis", "add", "yb.vanyen", "--endpoint", "van-yen", "--utc-offset", "0")
    assert "/vxp" in written and "Secret for yb.vanyen (shown this once): " in written
    file = lienthong.folder / "yb.vanyen.secret"
    kept = lienthong.json("axis", "secret", "yb.vanyen", "--secret-file", file)
    assert kept == {"system_id": "yb.vanyen", "secret_file": str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lists = {}

    def sent() -> bool:
        answer = ask(lienthong, "yb.tinh", made["secret"], lambda sdk: sdk.send_edoc(paper(VAN_YEN), PROVINCE))
        lists["doc"] = answer
        return len(str(answer)) == 36

    eventually(sent)

    def listed() -> bool:
        async def poll(sdk: Sdk) -> Any:
            sdk.zone = UTC
            return await sdk.get_received_edoc_list()

        answer = ask(lienthong, "yb.vanyen", file.read_text().strip(), poll)
        return isinstance(answer, list) and [entry["docId"] for entry in answer] == [lists["doc"]]

    eventually(listed)
    rows = {row["system_id"]: row for row in lienthong.json("axis", "list")}
    assert (rows["yb.tinh"]["endpoint"], rows["yb.tinh"]["active"], rows["yb.tinh"]["two_secrets"]) == (
        "tinh",
        True,
        False,
    )
    assert rows["yb.vanyen"]["two_secrets"] is True and rows["yb.vanyen"]["utc_hours"] == 0
    table = lienthong("axis", "list")
    assert "UTC+0" in table and made["secret"] not in table
    complaint = lienthong.fails("axis", "add", "yb.tinh", "--endpoint", "tinh")
    assert "lienthong axis secret yb.tinh" in complaint


def test_shut_out_and_let_in(lienthong: Lienthong) -> None:
    secret = lienthong.json("axis", "add", "yb.khac", "--endpoint", "tinh")["secret"]

    def polls() -> Any:
        return ask(lienthong, "yb.khac", secret, lambda sdk: sdk.get_received_edoc_list())

    eventually(lambda: polls() == [])
    assert "disabled" in lienthong("axis", "disable", "yb.khac")
    eventually(lambda: polls() == "54")
    lienthong("axis", "enable", "yb.khac")
    eventually(lambda: polls() == [])
    lienthong("axis", "secret", "yb.khac", "--revoke-others")
    eventually(lambda: polls() == "15")


def test_requests_of_systems(lienthong: Lienthong) -> None:
    secret = lienthong.json("axis", "add", "yb.so", "--endpoint", "tinh")["secret"]
    agency = {"name": "Sở Thông tin và Truyền thông", "pcode": PROVINCE, "mail": "vt@yenbai.gov.vn"}
    for code in (NEW, "H63.56"):

        def registered(code: str = code) -> bool:
            answer = ask(lienthong, "yb.so", secret, lambda sdk: sdk.register_agency(code=code, **agency))
            return isinstance(answer, dict)

        eventually(registered)
    first, second = lienthong.json("axis", "pending")
    assert (first["code"], first["kind"], first["system_id"], first["endpoint"]) == (
        NEW,
        "register",
        "yb.so",
        "tinh",
    )
    table = lienthong("axis", "pending")
    assert "Sở Thông tin" in table and "vt@yenbai.gov.vn" in table
    complaint = lienthong.fails("axis", "approve", first["id"], "999999")
    assert "no request 999999 waits" in complaint
    assert len(lienthong.json("axis", "pending")) == 2, "all or none"
    assert lienthong.json("axis", "approve", first["id"]) == [
        {"number": first["id"], "kind": "register", "code": NEW, "approved": True}
    ]
    assert "register H63.56, rejected" in lienthong("axis", "reject", second["id"])
    assert lienthong("axis", "pending").strip() == "nothing waits"
    (found,) = lienthong.json("agency", "list", NEW)
    assert (found["parent"], found["endpoint"]) == (PROVINCE, "tinh")
    assert lienthong.json("agency", "list", "H63.56") == []


def test_mistakes(lienthong: Lienthong) -> None:
    assert "no endpoint 'ai'" in lienthong.fails("axis", "add", "yb.ai", "--endpoint", "ai")
    assert "not a system id" in lienthong.fails("axis", "add", "yb ai", "--endpoint", "tinh")
    assert "no system yb.ai" in lienthong.fails("axis", "secret", "yb.ai")
    assert "no system yb.ai" in lienthong.fails("axis", "disable", "yb.ai")
    assert "cannot be read" in lienthong.fails(
        "axis", "secret", "yb.ai", LIENTHONG_SECRETS_KEY_FILE=str(lienthong.folder / "khong-co.pem")
    )
    assert "--endpoint" in lienthong.fails("axis", "add", "yb.ai", status=2)
