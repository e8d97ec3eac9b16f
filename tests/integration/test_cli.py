"""The ``lienthong`` command, as operators and their scripts use it: the hub, the directory, keys and settings."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import click
import orjson
import pytest

from hub.cli import SECTIONS, main
from hub.evidence.keys import load_hub_key
from hub.store.embedded import EmbeddedPostgres
from protocol.signature import Signer, generate, load_private, public_pem
from tests.support import command
from tests.support.command import Lienthong, eventually
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN

folder, prepared, lienthong = command.folder, command.prepared, command.lienthong

MANY = 100_000


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _leaves(child, (*path, name))
    else:
        yield path, command


COMMANDS = dict(_leaves(main))


# -- the whole of it ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_can_write_json(path: tuple[str, ...]) -> None:
    lienthong = Lienthong(Path())
    told = lienthong(*path, "--help")
    assert "Usage: " in told and "--json" in told
    command = COMMANDS[path]
    assert command.help and command.help[0].isupper(), "a sentence says what it does"
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ("json", "endpoint", "not_before", "not_after"):
            assert option.help or isinstance(option.type, click.Choice | click.Path), (path, option.name)


def test_every_command_has_its_section() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(main.commands)
    told = Lienthong(Path())("--help")
    assert all(f"\n{title}:\n" in told for title in SECTIONS) and "Others:" not in told


def test_the_commands_are_those_that_are_documented() -> None:
    groups = {"agency": {"add", "import", "list"}, "key": {"generate", "id", "add", "list", "disable"}}
    groups["endpoint"] = {"add", "assign", "limit", "list", "disable", "enable", "token", "trust", "revoke"}
    groups["endpoint"] |= {"acknowledgements", "signatures"}
    groups |= {"group": {"set"}, "operator": {"token", "list", "revoke"}}
    groups["axis"] = {"add", "secret", "list", "disable", "enable", "pending", "approve", "reject"}
    groups["link"] = {"add", "secret", "list", "show", "disable", "enable", "resend", "sync"}
    groups["link"] |= {"accept", "hubs", "pending", "approve", "reject"}
    groups["pdf"] = {"again", "check", "queue", "show"}
    groups |= {"trust": {"add", "list", "refresh", "remove"}, "log": {"status", "use-key", "begin"}}
    groups["ca"] = {"init", "issue", "revoke", "list", "crl", "serve"}
    groups["witness"] = {"init", "serve", "status", "evidence", "check"}
    single = {"serve", "init", "sign", "send", "receive", "status", "proof", "verify", "audit", "demo"}
    expected = {(name,) for name in single} | {(name, command) for name in groups for command in groups[name]}
    expected |= {("witness", "log", "add"), ("witness", "log", "remove")}
    assert set(COMMANDS) == expected
    assert Lienthong(Path())("--version").startswith("lienthong, version ")


# -- init and the directory -----------------------------------------------------------------------


def test_init_never_replaces_what_is_there(prepared: Lienthong) -> None:
    data = prepared.folder / "data"
    key = (data / "hub-key.pem").read_bytes()
    assert stat.S_IMODE((data / "hub-key.pem").stat().st_mode) == 0o600
    again = prepared.json("init")
    assert (data / "hub-key.pem").read_bytes() == key
    assert again["hub_key"] == Signer(load_hub_key(data / "hub-key.pem")).kid
    assert orjson.loads((data / "hub-key.pub").read_bytes())["kid"] == again["hub_key"]
    assert again["token"].startswith("lt_")
    assert again["token"] != (prepared.folder / "operator.token").read_text().strip()
    assert EmbeddedPostgres(data).pid() is None, "a command that started PostgreSQL stops it again"


def test_agencies_are_added_changed_and_found(lienthong: Lienthong) -> None:
    told = lienthong("agency", "add", DAI_SON, "UBND xã Đại Sơn", "--alias", "H63.31.21")
    assert f"below {VAN_YEN}" in told
    lienthong.json("agency", "add", DAI_SON, "Ủy ban nhân dân xã Đại Sơn", "--alias", "H63.31.21")
    (found,) = lienthong.json("agency", "list", "Đại Sơn")
    assert found["name"] == "Ủy ban nhân dân xã Đại Sơn"
    assert (found["parent"], found["aliases"]) == (VAN_YEN, ["H63.31.21"])
    assert lienthong.json("agency", "list", "H63.31.21") == [found]
    assert {row["code"] for row in lienthong.json("agency", "list")} >= {PROVINCE, VAN_YEN, DAI_SON}
    assert "Ủy ban nhân dân xã Đại Sơn" in lienthong("agency", "list", DAI_SON)
    assert "The first 1 agencies" in lienthong("agency", "list", "--limit", 1)
    assert lienthong("agency", "list", "không có").strip() == "Agencies: none"
    assert "already names the agency" in lienthong.fails(
        "agency", "add", "X.01", "Cơ quan", "--alias", "H63.31.21"
    )
    assert "not an identity code" in lienthong.fails("agency", "add", "có dấu cách", "Cơ quan")
    assert "no endpoint 'ai'" in lienthong.fails("agency", "add", "X.01", "Cơ quan", "--endpoint", "ai")
    assert "500 printable characters" in lienthong.fails("agency", "add", "X.01", "Tên\ncó xuống dòng")
    long_name = "Ủy ban " * 50 + "xã"  # longer than an endpoint's name may be, with blanks everywhere
    lienthong("agency", "add", "X.02", long_name)
    assert lienthong.json("agency", "list", "X.02")[0]["name"] == long_name


async def test_a_hundred_thousand_agencies_are_imported(database_url: str, tmp_path: Path) -> None:
    lines = ["code,name,parent,aliases,endpoint"]
    lines += [f'{n % 1000:03}.{n // 1000:02}.01.H63,"Cơ quan số {n}, tỉnh",,QD.{n},{n % 40}' for n in range(MANY)]
    file = tmp_path / "cơ quan.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    lienthong = Lienthong(tmp_path, {"LIENTHONG_DATABASE_URL": database_url})
    imported = await asyncio.to_thread(lienthong.json, "agency", "import", file)
    assert imported == {"agencies": MANY, "new_endpoints": 40}
    (last,) = await asyncio.to_thread(lienthong.json, "agency", "list", f"QD.{MANY - 1}")
    assert last["name"] == f"Cơ quan số {MANY - 1}, tỉnh"
    again = await asyncio.to_thread(lienthong, "agency", "import", file)
    assert again.strip() == f"{MANY} agencies imported, 0 endpoints made"
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from agency") == MANY
    assert await connection.fetchval("select count(*) from mailbox") == 40 * 3
    await connection.close()


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["code,name", "X.11,Một", "X 12,Hai"], "line 3: 'X 12' is not an identity code"),
        (["code,name", "X.11,Một", "X.12,"], "line 3: the name of X.12"),
        (["code,name", "X.11,Một", "X.12,Hai, ba"], "line 3: more fields than columns"),
        (["code,name", "X.11,Một", "X.11,Hai"], "X.11 stands twice in the file (rows 2 and 3)"),
        (["code,name,aliases", "X.11,Một,", f"X.12,Hai,{PROVINCE}"], f"{PROVINCE} already names the agency"),
        (["mã,tên", "X.11,Một"], "the first line must name the columns"),
    ],
)
def test_an_import_is_all_or_nothing_and_names_the_line(
    lienthong: Lienthong, tmp_path: Path, lines: list[str], complaint: str
) -> None:
    file = tmp_path / "cơ quan.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert complaint in lienthong.fails("agency", "import", file)
    assert lienthong.json("agency", "list", "X.11") == []


def test_an_import_of_another_encoding_says_so(lienthong: Lienthong, tmp_path: Path) -> None:
    file = tmp_path / "cơ quan.csv"
    file.write_bytes("code,name\nX.11,Café".encode("latin-1"))
    assert "is not UTF-8" in lienthong.fails("agency", "import", file)


def test_an_endpoint_from_its_making_to_its_end(lienthong: Lienthong, tmp_path: Path) -> None:
    made = lienthong.json("endpoint", "add", "luc-yen")
    assert made["agencies"] == [] and made["kid"] is None
    first = made["token"]
    assert "lienthong endpoint assign trạm-tấu" in lienthong("endpoint", "add", "trạm-tấu")
    assert "already" in lienthong.fails("endpoint", "add", "luc-yen")
    assert "no such agency: 000.00.99.H63" in lienthong.fails("endpoint", "add", "x", "--agency", "000.00.99.H63")
    assert "x" not in {row["name"] for row in lienthong.json("endpoint", "list")}, "nothing half done"
    lienthong("agency", "add", LUC_YEN, "Ủy ban nhân dân huyện Lục Yên")
    lienthong.json("endpoint", "assign", "luc-yen", LUC_YEN)
    assert lienthong.json("agency", "list", LUC_YEN)[0]["endpoint"] == "luc-yen"

    def works(token: str) -> bool:
        return lienthong.call("receive", "--into", tmp_path, LIENTHONG_TOKEN=token).exit_code == 0

    eventually(lambda: works(first))
    second = lienthong.json("endpoint", "token", "luc-yen", "--days", 3)
    assert second["expires"].startswith("20")
    eventually(lambda: works(second["token"]))
    assert works(first), "the old token goes on while the system changes over"
    third = lienthong.json("endpoint", "token", "luc-yen", "--revoke-others")["token"]
    eventually(lambda: works(third) and not works(first) and not works(second["token"]))
    assert lienthong.json("endpoint", "disable", "luc-yen") == {"name": "luc-yen", "active": False}
    eventually(lambda: not works(third))
    assert "disabled" in lienthong.fails("receive", LIENTHONG_TOKEN=third)
    assert "its mail is kept" in lienthong("endpoint", "enable", "luc-yen")
    eventually(lambda: works(third))
    assert lienthong.json("endpoint", "revoke", "luc-yen")["revoked"] == 1
    eventually(lambda: not works(third))
    row = next(row for row in lienthong.json("endpoint", "list") if row["name"] == "luc-yen")
    assert (row["active"], row["agencies"], row["credentials"]) == (True, 1, 0)
    assert "luc-yen" in lienthong("endpoint", "list")
    for word in ("disable", "enable", "token", "revoke"):
        assert "there is no endpoint 'ai'" in lienthong.fails("endpoint", word, "ai")


def test_an_endpoint_may_have_to_sign_what_it_acknowledges(lienthong: Lienthong) -> None:
    lienthong.json("endpoint", "add", "văn-chấn")

    def policy() -> str:
        (found,) = [row for row in lienthong.json("endpoint", "list") if row["name"] == "văn-chấn"]
        return str(found["signed_acknowledgements"])

    assert policy() == "accept"
    told = lienthong("endpoint", "acknowledgements", "văn-chấn", "--signed", "require")
    assert told.strip() == "văn-chấn must sign what it acknowledges"
    assert policy() == "require"
    lienthong("endpoint", "acknowledgements", "văn-chấn", "--signed", "accept")
    assert policy() == "accept"


@pytest.mark.parametrize("kid", ["-zrGSgUa5TR9Mfihc1dJBO6gDcgFAd518aoKaYVZUsM", "-h", "_h"])
def test_a_thumbprint_is_no_option_whatever_it_looks_like(lienthong: Lienthong, kid: str) -> None:
    assert f"no key {kid} is registered" in lienthong.fails("key", "disable", kid)
    assert f"no key {kid} is registered" in lienthong.fails("key", "disable", kid, "--json")


def test_limits_of_an_endpoint_are_set_shown_and_taken_back(lienthong: Lienthong) -> None:
    lienthong.json("endpoint", "add", "mù-cang-chải")

    def row() -> tuple[float | None, float | None]:
        (found,) = [row for row in lienthong.json("endpoint", "list") if row["name"] == "mù-cang-chải"]
        return found["rate_messages"], found["rate_bytes"]

    assert row() == (None, None)
    set_ = lienthong.json("endpoint", "limit", "mù-cang-chải", "--messages", 50)
    assert set_ == {"name": "mù-cang-chải", "rate_messages": 50.0, "rate_bytes": None}
    told = lienthong("endpoint", "limit", "mù-cang-chải", "--bytes", 5_000_000)
    assert "may submit 50 messages/s, 5,000,000 bytes/s" in told
    assert row() == (50.0, 5e6), "what is not given stays"
    assert "50 messages/s, 5,000,000 bytes/s" in lienthong("endpoint", "list")
    assert "any messages/s, 5,000,000" in lienthong("endpoint", "limit", "mù-cang-chải", "--messages", 0)
    assert row() == (0.0, 5e6)
    lienthong("endpoint", "limit", "mù-cang-chải", "--default", "--messages", 7)
    assert row() == (7.0, None)
    assert "the hub's default" in lienthong("endpoint", "limit", "mù-cang-chải", "--default")
    assert row() == (None, None)
    assert "give --messages" in lienthong.fails("endpoint", "limit", "mù-cang-chải", status=2)
    assert "-1" in lienthong.fails("endpoint", "limit", "mù-cang-chải", "--messages", -1, status=2)
    assert "there is no endpoint 'ai'" in lienthong.fails("endpoint", "limit", "ai", "--default")


def test_a_token_goes_where_it_is_told(lienthong: Lienthong, tmp_path: Path) -> None:
    file = tmp_path / "t.token"
    file.write_text("cũ")
    shown = lienthong("operator", "token", "--label", "giám sát", "--role", "auditor", "--token-file", file)
    assert "lt_" not in shown
    assert file.read_text().startswith("lt_")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    nowhere = tmp_path / "không có" / "t.token"
    assert "there is no directory" in lienthong.fails("operator", "token", "--token-file", nowhere, status=2)


def test_administrators_tokens_are_listed_and_revoked(lienthong: Lienthong) -> None:
    lienthong.json("operator", "token", "--label", "Trần Văn Bình", "--days", 1)
    assert "Trần Văn Bình" in lienthong("operator", "list")
    assert lienthong.json("operator", "revoke", "Trần Văn Bình")["revoked"] == 1
    assert "Trần Văn Bình" not in {row["label"] for row in lienthong.json("operator", "list")}
    assert "no administrator's token" in lienthong.fails("operator", "revoke", "Trần Văn Bình")


def test_groups(lienthong: Lienthong) -> None:
    assert lienthong.json("group", "set", "huyen", VAN_YEN, LUC_YEN)["members"] == [VAN_YEN, LUC_YEN]
    assert "not identity codes: a b" in lienthong.fails("group", "set", "huyen", "a b")


# -- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256", "PS256"])
def test_keys_are_made_and_registered(lienthong: Lienthong, tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "khóa.pem"
    made = lienthong.json("key", "generate", file, "--alg", algorithm)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Signer(load_private(file.read_bytes())).kid == made["kid"]
    assert "never overwritten" in lienthong.fails("key", "generate", file)
    assert lienthong.json("key", "id", made["public"]) == {"kid": made["kid"]}
    assert lienthong("key", "id", made["public"]).strip() == made["kid"]
    assert "this is a private key" in lienthong.fails("key", "id", file)
    added = lienthong.json("key", "add", made["public"], "--endpoint", "van-yen")
    assert added["kid"] == made["kid"]
    assert "somebody else" in lienthong.fails("key", "add", made["public"], "--agency", VAN_YEN)
    assert "this is a private key" in lienthong.fails("key", "add", file, "--endpoint", "van-yen")
    assert lienthong.json("key", "disable", made["kid"]) == {"kid": made["kid"], "active": False}


def test_a_key_has_one_owner_who_exists(lienthong: Lienthong, tmp_path: Path) -> None:
    file = tmp_path / "khóa.pub"
    file.write_bytes(public_pem(generate().public_key()))
    assert "no such agency: 000.00.98.H63" in lienthong.fails("key", "add", file, "--agency", "000.00.98.H63")
    assert "there is no endpoint" in lienthong.fails("key", "add", file, "--endpoint", "ai")
    assert "one of --endpoint and --agency" in lienthong.fails("key", "add", file, status=2)
    for kid in ("x", "-3x", "--x_"):  # thumbprints begin with any of their characters
        assert f"no key {kid} is registered" in lienthong.fails("key", "disable", kid)
    file.write_text("không phải khóa")
    assert "not a PEM public key" in lienthong.fails("key", "add", file, "--agency", VAN_YEN)


# -- where there is no hub ------------------------------------------------------------------------


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    lienthong = Lienthong(tmp_path, {"LIENTHONG_DATA_DIR": str(tmp_path / "data")})
    assert f"lienthong init --data-dir {tmp_path / 'data'}" in lienthong.fails("agency", "list")
    assert not (tmp_path / "data").exists(), "asking makes nothing"
    away = lienthong.fails("receive", "--url", "http://127.0.0.1:1", "--retry", "0", "--token", "x")
    assert "is the hub running, and is --url right?" in away
    nobody = "postgresql://127.0.0.1:1/khong-co"
    assert "must look like" in lienthong.fails("serve", "--database-url", "mysql://x", "--port", 0)
    assert "does not answer" in lienthong.fails("agency", "list", LIENTHONG_DATABASE_URL=nobody)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--host", "0.0.0.0"], "--allow-plain-http"),
        (["--tls-cert", "x.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-client-ca", "x.pem"], "--tls-client-ca needs --tls-cert"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "--tls-cert: there is no file x.pem"),
        (["--port", "70000"], "--port: Expected `int` <= 65535"),
        (["--workers", "0"], "--workers: Expected `int` >= 1"),
        (["--max-queue-bytes", "1"], "--max-queue-bytes: "),
        (["--host", "không.tồn.tại.invalid", "--allow-plain-http"], "cannot listen on"),
    ],
)
def test_serve_refuses_settings_that_cannot_be(tmp_path: Path, options: list[str], complaint: str) -> None:
    lienthong = Lienthong(tmp_path)
    assert complaint in lienthong.fails("serve", "--data-dir", tmp_path / "data", *options)


def test_one_data_directory_and_one_port_have_one_hub(lienthong: Lienthong, tmp_path: Path) -> None:
    assert "a hub is running in" in lienthong.fails("serve", "--port", 0)
    url = lienthong.environment["LIENTHONG_URL"]
    assert url is not None
    taken = lienthong.fails("serve", "--data-dir", tmp_path / "data", "--port", url.rpartition(":")[2])
    assert "Address already in use" in taken and "see --port" in taken
    lienthong("receive", "--into", tmp_path, LIENTHONG_TOKEN_FILE=str(lienthong.folder / "tinh.token"))


def test_a_setting_comes_from_the_option_then_from_the_environment(lienthong: Lienthong) -> None:
    """The hub of these tests was named by LIENTHONG_NAME and told its place by LIENTHONG_DATA_DIR."""
    assert "--port: " in lienthong.fails("serve", LIENTHONG_PORT="70000")
    assert "--workers: " in lienthong.fails("serve", "--port", "0", "--workers", "0", LIENTHONG_WORKERS="1")
    assert "--port: " in lienthong.fails("serve", LIENTHONG_SERVE_PORT="70000"), "the longer name works too"
