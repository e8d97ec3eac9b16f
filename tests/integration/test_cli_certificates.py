"""``lienthong ca``, ``trust`` and ``key`` with certificates, as somebody types them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from hub.ca.authority import TRIAL, Authority
from protocol.certificate import load_all, sha256, subject, to_der, to_pem
from protocol.certificate_revocation import Answer, AnswerKind, Status, check_revocation, ocsp_request
from tests.support import command
from tests.support.certificates import make_key, root
from tests.support.command import Lienthong

folder = command.folder
prepared = command.prepared


@pytest.fixture(scope="module")
def lienthong(prepared: Lienthong) -> Lienthong:
    """A hub that does not run: what commands change is in its database all the same."""
    prepared("agency", "add", "000.00.00.H63", "Ủy ban nhân dân tỉnh Yên Bái")
    prepared("endpoint", "add", "tinh", "--agency", "000.00.00.H63", "--token-file", prepared.folder / "t")
    return prepared


@pytest.fixture
def ca(lienthong: Lienthong, tmp_path: Path) -> Path:
    lienthong("ca", "init", tmp_path / "ca")
    return tmp_path / "ca"


def test_everything_that_the_authority_makes_says_that_it_is_for_trial(
    lienthong: Lienthong, ca: Path, tmp_path: Path
) -> None:
    assert TRIAL == "Thử nghiệm – không có giá trị pháp lý"
    lienthong("ca", "issue", ca, "Sở Tư pháp", "--new-key", tmp_path / "k.pem", "--out", tmp_path / "c.pem")
    for file in (ca / "ca.pem", tmp_path / "c.pem"):
        assert f"OU={TRIAL}" in subject(load_all(file.read_bytes())[0])
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600
    assert (ca / "ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert TRIAL in " ".join(lienthong("ca", "--help").split())
    assert TRIAL in lienthong("ca", "list", ca)
    assert "exists" in lienthong.fails("ca", "issue", ca, "Sở Tư pháp", "--new-key", tmp_path / "k.pem")
    assert "already" in lienthong.fails("ca", "init", ca)
    assert "no authority" in lienthong.fails("ca", "list", tmp_path / "không có")
    assert "one of --key and --new-key" in lienthong.fails("ca", "issue", ca, "Sở Tư pháp", status=2)


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_issue_revoke_and_list(lienthong: Lienthong, tmp_path: Path, alg: str) -> None:
    folder = tmp_path / alg
    made = lienthong.json("ca", "init", folder, "--alg", alg, "--ca-url", "")
    authority = load_all((folder / "ca.pem").read_bytes())[0]
    assert made["sha256"] == sha256(authority).hex()
    lienthong("key", "generate", tmp_path / "tinh.pem", "--alg", "EdDSA")
    file = tmp_path / "tinh.crt"
    issued = lienthong.json(
        "ca",
        "issue",
        folder,
        "Văn phòng",
        "--agency",
        "000.00.00.H63",
        "--key",
        tmp_path / "tinh.pem",
        "--out",
        file,
    )
    certificate = load_all(file.read_bytes())[0]
    assert (issued["sha256"], issued["serial"]) == (sha256(certificate).hex(), f"{certificate.serial_number:x}")
    assert "UID=000.00.00.H63" in issued["subject"]

    def listed() -> Answer:
        lienthong("ca", "crl", folder, "--out", tmp_path / "crl.der")
        return Answer(AnswerKind.CRL, (tmp_path / "crl.der").read_bytes())

    assert check_revocation(certificate, authority, [listed()], datetime.now(UTC)).status is Status.GOOD
    assert lienthong.json("ca", "revoke", folder, file, "--reason", "superseded")["reason"] == "superseded"
    found = check_revocation(certificate, authority, [listed()], datetime.now(UTC))
    assert (found.status, found.reason) == (Status.REVOKED, "superseded")
    (row,) = lienthong.json("ca", "list", folder)
    assert row["serial"] == issued["serial"] and row["revoked_at"]
    assert "issued nothing" in lienthong.fails("ca", "revoke", folder, "abc123")
    assert "is no reason" in lienthong.fails("ca", "revoke", folder, file, "--reason", "vì thích")


def test_trust_and_keys(lienthong: Lienthong, ca: Path, tmp_path: Path) -> None:
    file, key = tmp_path / "tinh.crt", tmp_path / "tinh.pem"
    lienthong("ca", "issue", ca, "UBND tỉnh Yên Bái", "--new-key", key, "--out", file, "--days", "20")
    assert "nobody is trusted" in lienthong("trust", "list")
    pinned = lienthong.json("key", "add", file, "--endpoint", "tinh")
    (row,) = lienthong.json("key", "list")
    assert (row["kid"], row["chained"], row["chain"]) == (pinned["kid"], False, [])
    assert "it is pinned" in lienthong("key", "list")
    added = lienthong.json("trust", "add", ca / "ca.pem", "--revocation", "hard")
    assert added["sha256"] == sha256(load_all((ca / "ca.pem").read_bytes())[0]).hex()
    assert (added["certificates"], added["lost"]) == (1, 0)
    written = lienthong("trust", "list")
    assert "hard" in written and "19 days left" in written and "not known" in written
    listed = lienthong.json("trust", "list")
    assert [one["keys"] for one in listed["anchors"]] == [1]
    assert [one["owner"] for one in listed["troubled"]] == ["tinh"]
    (row,) = lienthong.json("key", "list")
    assert (row["chained"], row["chain"][-1]) == (True, added["sha256"])
    lienthong("trust", "refresh")
    assert "authority's" in lienthong.fails("trust", "add", file)
    removed = lienthong.json("trust", "remove", added["sha256"][:12])
    assert removed["lost"] == 1
    assert "nobody who is trusted" in lienthong("key", "list")
    assert "trust list" in lienthong.fails("trust", "remove", added["sha256"])
    lienthong("key", "disable", pinned["kid"])
    assert lienthong.json("key", "list") == []
    assert [row["active"] for row in lienthong.json("key", "list", "--all")] == [False]


def test_a_chain_beside_the_certificate(lienthong: Lienthong, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    top = root("Gốc hai tầng")
    between = top.issue("Trung gian", authority=True, begins=now - timedelta(days=1), ends=now + timedelta(days=9))
    leaf = between.issue("Văn phòng", begins=now - timedelta(days=1), ends=now + timedelta(days=9))
    (tmp_path / "top.pem").write_bytes(to_pem(top.certificate))
    (tmp_path / "leaf.der").write_bytes(to_der(leaf.certificate))
    (tmp_path / "chain.pem").write_bytes(to_pem(between.certificate))
    (tmp_path / "both.pem").write_bytes(to_pem(leaf.certificate) + to_pem(between.certificate))
    anchor = lienthong.json("trust", "add", tmp_path / "top.pem")
    words = ("key", "add", tmp_path / "leaf.der", "--endpoint", "tinh")
    told = lienthong.fails(*words)
    assert "Trung gian" in told and "--chain" in told
    kid = lienthong.json(*words, "--chain", tmp_path / "chain.pem")["kid"]
    assert lienthong.json("key", "add", tmp_path / "both.pem", "--endpoint", "tinh")["kid"] == kid
    row = next(row for row in lienthong.json("key", "list") if row["kid"] == kid)
    assert row["chain"] == [sha256(one.certificate).hex() for one in (leaf, between, top)]
    assert "one at a time" in lienthong.fails("trust", "add", tmp_path / "both.pem")
    lienthong("key", "disable", kid)
    lienthong("trust", "remove", anchor["sha256"])


def test_an_endpoint_begins_with_a_certificate(lienthong: Lienthong, ca: Path, tmp_path: Path) -> None:
    file = tmp_path / "so.crt"
    lienthong("ca", "issue", ca, "Sở Nội vụ", "--new-key", tmp_path / "so.pem", "--out", file)
    made = lienthong.json("endpoint", "add", "so-noi-vu", "--key", file, "--token-file", tmp_path / "t")
    row = next(row for row in lienthong.json("key", "list") if row["kid"] == made["kid"])
    assert row["certificate"] == sha256(load_all(file.read_bytes())[0]).hex()
    lienthong("key", "disable", made["kid"])


async def test_serve_answers_until_it_is_stopped(ca: Path, tmp_path: Path, http: aiohttp.ClientSession) -> None:
    authority = Authority.open(ca)
    certificate = authority.issue("Văn phòng", make_key("p256").public_key())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "ca", "serve", str(ca), "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG")},
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found and "for trial only" in line
        url = found.group()
        async with http.post(f"{url}/ocsp", data=ocsp_request(certificate, authority.certificate)) as response:
            answer = Answer(AnswerKind.OCSP, await response.read())
        async with http.get(f"{url}/crl") as response:
            crl = Answer(AnswerKind.CRL, await response.read())
        async with http.get(f"{url}/ca.pem") as response:
            assert load_all(await response.read()) == [authority.certificate]
        for one in (answer, crl):
            now = datetime.now(UTC)
            assert check_revocation(certificate, authority.certificate, [one], now).status is Status.GOOD
        authority.revoke(f"{certificate.serial_number:x}", "key_compromise")
        async with http.post(f"{url}/ocsp", data=ocsp_request(certificate, authority.certificate)) as response:
            answer = Answer(AnswerKind.OCSP, await response.read())
        now = datetime.now(UTC)
        assert check_revocation(certificate, authority.certificate, [answer], now).status is Status.REVOKED
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
