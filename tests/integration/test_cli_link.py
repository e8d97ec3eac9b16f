"""``lienthong link``: what an operator sees of a peer, and does about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import command
from tests.support.command import Lienthong, eventually
from tests.support.parties import PROVINCE, VAN_YEN

folder = command.folder
prepared = command.prepared
lienthong = command.lienthong

UP = "truc-quoc-gia"
OFFICE = "000.00.00.G22"
NOWHERE = "http://127.0.0.1:9/vxp"


def _secret(lienthong: Lienthong, text: str) -> Path:
    file = lienthong.folder / "secret"
    file.write_text(text + "\n")
    return file


def _show(lienthong: Lienthong) -> Any:
    return lienthong.json("link", "show", UP)


def test_a_peer_that_is_away_and_then_there(lienthong: Lienthong) -> None:
    """docs/linking.md, from the first command to the last. The hub is linked with itself, as the peer at hand."""
    own = lienthong.json("axis", "add", "tinh.01", "--endpoint", "tinh")
    add = ["link", "add", UP, "--axis", "--system-id", "tinh.01", "--branch", VAN_YEN, "--default"]
    fast = ["--poll-seconds", "0.2", "--retry-seconds", "0.5", "--sync-seconds", "0"]
    made = lienthong.json(*add, "--url", NOWHERE, "--secret-file", _secret(lienthong, own["secret"]), *fast)
    assert made == {"name": UP, "url": NOWHERE, "system_id": "tinh.01", "branch": [VAN_YEN]}
    eventually(lambda: "cannot be reached" in (_show(lienthong)["last_error"] or ""))
    assert "fails" in lienthong("link", "list")
    written = lienthong("link", "show", UP)
    assert "last success   never" in written and "cannot be reached" in written
    assert own["secret"] not in written + lienthong("link", "list")
    lienthong("link", "disable", UP)
    assert lienthong.json("link", "list")[0]["active"] is False
    assert "disabled" in lienthong("link", "show", UP)
    lienthong("link", "enable", UP)
    assert "within a second" in lienthong("link", "resend", UP)
    assert "fetches" in lienthong("link", "sync", UP)
    peer = f"{lienthong.environment['LIENTHONG_URL']}/vxp"
    second = "ban-sao"
    lienthong(*[second if word == UP else word for word in add[:-1]], "--url", peer, "--secret-file",
              _secret(lienthong, own["secret"]), *fast)  # fmt: skip
    eventually(lambda: lienthong.json("link", "show", second)["last_success_at"] is not None)
    assert "works" in lienthong("link", "show", second)
    lienthong("link", "secret", second, "--secret-file", _secret(lienthong, "sai"))
    eventually(lambda: "code 15" in (lienthong.json("link", "show", second)["last_error"] or ""))


def test_what_cannot_be_linked(lienthong: Lienthong) -> None:
    secret = _secret(lienthong, "bí mật")
    add = ["link", "add", "khac", "--axis", "--system-id", "x", "--secret-file", secret]
    assert "not an address" in lienthong.fails(*add, "--url", "truc.vn", "--branch", PROVINCE)
    assert "--branch" in lienthong.fails(*add, "--url", NOWHERE, status=2)
    assert "not identity codes" in lienthong.fails(*add, "--url", NOWHERE, "--branch", "Yên Bái")
    lienthong(*add, "--url", NOWHERE, "--branch", PROVINCE)
    assert "already" in lienthong.fails(*add, "--url", NOWHERE, "--branch", PROVINCE)
    for words in (("show",), ("disable",), ("resend",), ("sync",), ("secret", "--secret-file", secret)):
        assert "no link 'lạ'" in lienthong.fails("link", words[0], "lạ", *words[1:])


def test_a_native_link_and_its_keys(lienthong: Lienthong) -> None:
    """The two commands that link two hubs. This hub is its own peer, as the one at hand."""
    file = lienthong.folder / "token"
    accepted = lienthong.json("link", "accept", "tinh-yen-bai", "--branch", VAN_YEN, "--approve-keys",
                              "--token-file", file)  # fmt: skip
    assert accepted == {"name": "tinh-yen-bai", "branch": [VAN_YEN], "approve_keys": True, "token_file": str(file)}
    add = ["link", "add", "truc", "--native", "--url", lienthong.environment["LIENTHONG_URL"], "--branch", VAN_YEN]
    lienthong(*add, "--token-file", file, "--retry-seconds", "0.5")
    eventually(lambda: "linked with itself" in (lienthong.json("link", "show", "truc")["last_error"] or ""))
    assert "(native)" in lienthong("link", "show", "truc")
    (row,) = lienthong.json("link", "hubs")
    assert (row["name"], row["approval"], row["waiting_keys"]) == ("tinh-yen-bai", True, 0)
    assert "tinh-yen-bai" in lienthong("link", "hubs")
    assert "no keys wait" in lienthong("link", "pending")
    assert "no such key" in lienthong.fails("link", "approve", "tinh-yen-bai")
    assert "no such key" in lienthong.fails("link", "reject", "tinh-yen-bai", "khóa-lạ")
    assert "two hubs are linked from one side" in lienthong.fails("link", "accept", "truc", "--branch", VAN_YEN)
    assert "identity code" in lienthong.fails("link", "accept", "khac", "--branch", "Yên Bái")


def test_how_a_native_link_cannot_be_added(lienthong: Lienthong) -> None:
    secret = _secret(lienthong, "bí mật")
    add = ["link", "add", "khac", "--url", NOWHERE, "--branch", PROVINCE]
    assert "--axis or --native" in lienthong.fails(*add, status=2)
    assert "--token-file" in lienthong.fails(*add, "--native", status=2)
    assert "--secret-file" in lienthong.fails(*add, "--axis", "--system-id", "x", status=2)
    assert "for --axis" in lienthong.fails(*add, "--native", "--token-file", secret, "--system-id", "x", status=2)
    assert "--system-id" in lienthong.fails(*add, "--axis", "--secret-file", secret)
