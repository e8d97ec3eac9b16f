"""``lienthong proof`` and ``lienthong verify``: what people read, and the status that a script sees."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import orjson
import pytest

from protocol.evidence import read_receipt
from protocol.proof import read_proof
from protocol.signature import parse
from tests.support import command
from tests.support.command import Lienthong, eventually
from tests.support.parties import PROVINCE, VAN_YEN

folder, prepared, lienthong = command.folder, command.prepared, command.lienthong
tinh, paper = command.tinh, command.paper


def get(lienthong: Lienthong, path: str) -> bytes:
    with urllib.request.urlopen(f"{lienthong.environment['LIENTHONG_URL']}{path}") as answer:
        return bytes(answer.read())


@pytest.fixture
def sent(lienthong: Lienthong, tinh: dict[str, str], paper: Path, tmp_path: Path) -> Path:
    """A folder with `x.proof`, `x.jws`, `x.receipt.json` and `trust.json` of a document that was acknowledged."""
    van_yen: dict[str, str | None] = {"LIENTHONG_TOKEN_FILE": str(lienthong.folder / "van-yen.token")}
    eventually(lambda: lienthong.call("receive", "--into", tmp_path / "cũ", **van_yen).exit_code == 0)
    eventually(lambda: lienthong.call("receive", "--into", tmp_path / "cũ", **tinh).exit_code == 0)
    options = ("--from", PROVINCE, "--to", VAN_YEN, "--subject", "Báo cáo tuần 39", "--receipt", tmp_path)
    message = lienthong.json("send", paper, *options, **tinh)[0]["id"]
    (entry,) = lienthong.json("receive", "--into", tmp_path, "--wait", 5, **van_yen)
    Path(entry["files"][0]).rename(tmp_path / "x.jws")
    (tmp_path / f"{message}.receipt.json").rename(tmp_path / "x.receipt.json")

    def ripe() -> bool:
        result = lienthong.call("proof", message, **tinh)
        assert result.exit_code == 0, result.output
        (tmp_path / "x.proof").write_bytes(result.stdout_bytes)
        proof = read_proof((tmp_path / "x.proof").read_bytes())
        # On a busy machine the hand-over may be an event of its own, before the acknowledgement.
        ended = proof.events and orjson.loads(proof.events[-1].receipt.event)["event"] == "acknowledged"
        return bool(ended) and all(one.logged for one in (proof.accepted, *proof.events))

    eventually(ripe)
    (tmp_path / "trust.json").write_bytes(get(lienthong, "/v1/hub/trust"))
    return tmp_path


def test_proof_and_verify(lienthong: Lienthong, sent: Path, tinh: dict[str, str]) -> None:
    words = ("verify", sent / "x.proof", sent / "x.jws", "--trust-file", sent / "trust.json")
    count = 1 + len(read_proof((sent / "x.proof").read_bytes()).events)
    told = lienthong(*words)
    vietnamese, english = told.split("VERDICT: proven.")
    assert vietnamese.startswith("KẾT LUẬN: bằng chứng đúng.")
    for sentence in (
        "không sai một byte",
        "Đã giao cho hệ thống bên nhận: van-yen",
        "Bên nhận xác nhận đã nhận: van-yen",
        f"Cả {count} sự kiện nằm trong nhật ký minh bạch",
    ):
        assert sentence in vietnamese
    for sentence in (
        "No witness that is trusted signed",
        "the hub's word alone",
        "that anybody read or understood",
    ):
        assert sentence in english
    assert "Whom was trusted" in english and "SHA-256" in english
    assert lienthong(*words, "--lang", "en").startswith("VERDICT: proven.")
    assert "VERDICT" not in lienthong(*words, "--lang", "vi")
    answer = lienthong.json(*words)
    assert answer["verified"] is True and answer["failed"] is None
    assert list(answer["trust"]) == [str(sent / "trust.json")]
    assert lienthong.json(*words[:2], "--document", *words[2:]) == answer
    same = lienthong.json(*words, "--against", sent / "x.proof")
    assert same["verified"] is True and same["findings"][-1]["code"] == "log_same_face"
    # Into a file, by one's own id.
    message = read_proof((sent / "x.proof").read_bytes())
    own = orjson.loads(message.accepted.receipt.event)["id"]
    lienthong("proof", own, "--out", sent / "y.proof", **tinh)
    assert read_proof((sent / "y.proof").read_bytes()).message == message.message
    assert "not-found" in lienthong.fails("proof", "không-có", **tinh)


def test_not_proven(lienthong: Lienthong, sent: Path, paper: Path) -> None:
    trust = ("--trust-file", sent / "trust.json", "--lang", "vi")
    file = (sent / "x.proof").read_bytes()
    (sent / "cut.proof").write_bytes(file[: len(file) // 2])
    (sent / "empty.proof").write_bytes(b"")
    (sent / "changed.proof").write_bytes(file.replace(b'"index":0', b'"index":1', 1))
    for proof, documents, step, sentence in (
        ("x.proof", [paper], "Văn bản", "KHÔNG phải là văn bản"),
        ("x.proof", [], "Văn bản", "Chưa có văn bản để đối chiếu"),
        ("cut.proof", [sent / "x.jws"], "Tệp", "đã bị sửa, bị cắt"),
        ("empty.proof", [sent / "x.jws"], "Tệp", "đã bị sửa, bị cắt"),
        ("changed.proof", [sent / "x.jws"], "Tệp", "không đúng như máy chủ liên thông đã ký"),
    ):
        result = lienthong.call("verify", sent / proof, *documents, *trust)
        assert result.exit_code == 1
        assert result.stdout.startswith(f"KẾT LUẬN: KHÔNG được chứng minh. Bước đầu tiên không đạt: {step}.")
        assert sentence in result.stdout
        answer = lienthong.call("--json", "verify", sent / proof, *documents, *trust)
        assert answer.exit_code == 1 and orjson.loads(answer.stdout)["verified"] is False


def test_keys_that_one_knows(lienthong: Lienthong, sent: Path) -> None:
    """Keys that an agency made known itself, instead of the hub's word on whose they are."""
    words = ("verify", sent / "x.proof", sent / "x.jws", "--trust-file", sent / "trust.json")
    assert "key_by_hub" in {one["code"] for one in lienthong.json(*words)["findings"]}
    kid = orjson.loads(read_proof((sent / "x.proof").read_bytes()).accepted.receipt.event)["signer"]["kid"]
    known = lienthong("verify", *words[1:], "--agency-key", f"{PROVINCE}={kid}", "--lang", "vi")
    assert f"Khóa này là của cơ quan {PROVINCE}, theo danh sách tin cậy của chính bạn." in known
    result = lienthong.call(*words, "--agency-key", f"{PROVINCE}={'x' * 43}", "--lang", "en")
    assert result.exit_code == 1 and f"The key {kid} is NOT among those" in result.stdout
    both = ("--agency-key", f"{PROVINCE}={'x' * 43}", "--agency-key", f"{PROVINCE}={kid}")
    assert lienthong.json(*words, *both)["verified"] is True
    assert "is no key's id" in lienthong.fails(*words, "--agency-key", f"{PROVINCE}=x")
    # What is logged needs no promise, however short one accepts.
    assert lienthong.json(*words, "--promise-seconds", 0)["verified"] is True


def test_whom_to_trust(lienthong: Lienthong, sent: Path) -> None:
    words = ("verify", sent / "x.proof", sent / "x.jws")
    complaint = lienthong.fails(*words, status=2)
    assert "--hub-key" in complaint and "--trust-file" in complaint and "whom do you trust?" in complaint
    log = orjson.loads(get(lienthong, "/log"))["vkey"]
    (sent / "keys.json").write_bytes(get(lienthong, "/v1/hub/keys"))
    keys = ("--hub-key", sent / "keys.json")
    assert "log_no_key" in {one["code"] for one in lienthong.json(*words, *keys)["findings"]}
    found = lienthong.json(*words, *keys, "--log-key", log)["findings"]
    assert "log_recorded" in {one["code"] for one in found}
    key = "thanh-tra.gov.vn+d03eafdb+BJKN5iBTIgCnmsp8Co7hUqYN+HY0kQrdQ5cyEzR4yOpG"
    assert "altered" in lienthong.fails(*words, *keys, "--witness", key)
    assert "1 witnesses are asked for, and 0" in lienthong.fails(*words, *keys, "--quorum", 1)
    for option, file in (("--trust-file", "keys.json"), ("--trust", "x.jws"), ("--timestamp-ca", "x.jws")):
        lienthong.fails(*words, *keys, option, sent / file)
    assert "single receipt" in lienthong.fails(*words, *keys, "--log-proof", sent / "x.jws", status=2)
    twice = lienthong.fails(*words, "--document", sent / "x.jws", *keys, status=2)
    assert "give the document once" in twice


def test_a_receipt_and_its_place_in_the_log(lienthong: Lienthong, sent: Path) -> None:
    receipt = read_receipt((sent / "x.receipt.json").read_bytes())
    batch = orjson.loads(parse(receipt.seal.encode()).payload)["batch"]
    (sent / "x.tlog-proof").write_bytes(get(lienthong, f"/log/proof/{batch}/{receipt.index}"))
    words = ("verify", sent / "x.receipt.json", sent / "x.jws", "--trust-file", sent / "trust.json")
    told = lienthong(*words, "--log-proof", sent / "x.tlog-proof")
    assert told.startswith("Genuine: the hub trục Yên Bái sealed")
    assert "Cả 1 sự kiện nằm trong nhật ký minh bạch" in told and "VERDICT: proven." in told
    alone = lienthong.json(*words)
    assert alone["verified"] is True and "log_promised" in {one["code"] for one in alone["findings"]}
    (sent / "other.tlog-proof").write_bytes((sent / "x.tlog-proof").read_bytes().replace(b"index ", b"index 1", 1))
    result = lienthong.call(*words, "--log-proof", sent / "other.tlog-proof", "--lang", "en")
    assert result.exit_code == 1 and "is NOT in the log where the file says" in result.stdout
    assert "not a proof of c2sp.org" in lienthong.fails(*words, "--log-proof", sent / "x.jws")
