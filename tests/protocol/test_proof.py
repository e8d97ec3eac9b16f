"""A proof as a file: how it is written, and what a right one proves, in the words that people read."""

from __future__ import annotations

import string
from datetime import timedelta

import msgspec
import pytest

from protocol.proof import Evidence, ProofError, from_base64, is_proof, key_text, read_key, read_proof, write_proof
from protocol.proof_trust import Trust, TrustError, read_trust, write_trust
from protocol.proof_words import DEEDS, KINDS, LIMITS, STATUSES, STEPS, VERDICTS, WORDS
from protocol.signature import generate, unb64url
from tests.support.certificates import NOW
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN
from tests.support.proofs import EDXML, LATER, MESSAGE, Scene, Witness


def codes(verdict: object) -> list[str]:
    return [one.code for one in verdict.findings]  # type: ignore[attr-defined]


# -- what is proven ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "PS256"])
@pytest.mark.parametrize("format_", ["jws", "manifest"])
def test_native(format_: str, alg: str) -> None:
    witnesses = [Witness("so-noi-vu.gov.vn"), Witness("thanh-tra.gov.vn")]
    scene = Scene(format=format_, alg=alg, witnesses=witnesses, signed=2)
    verdict = scene.verify(trust=scene.trust(2))
    assert verdict.verified and verdict.failed is None
    assert codes(verdict) == [
        "file_intact",
        "accepted",
        "document_same",
        "sender_signed",
        "key_by_hub",
        "recipients_listed",
        "event",
        "recipient_signed",
        "event",
        "recipient_signed",
        "recipient_keys_by_hub",
        "log_recorded",
        "witnesses_met",
    ]


def test_edxml_says_that_its_sender_signed_nothing() -> None:
    scene = Scene(format="edxml")
    verdict = scene.verify()
    assert verdict.verified
    (sender,) = [one for one in verdict.findings if one.step == "sender"]
    assert (sender.status, sender.required) == ("not_proven", False)
    assert "no signature of the sender over its bytes" in sender.en and "the hub's word" in sender.en
    assert "không có chữ ký của bên gửi" in sender.vi and "tỉnh Yên Bái" in sender.vi
    # Its bytes count as they are, to the last.
    assert scene.verify(document=EDXML + b"\n").verified  # a line feed at its end is no part of it
    assert not scene.verify(document=EDXML.replace(b"'1.0'", b'"1.0"')).verified


def test_what_people_read() -> None:
    scene = Scene(ended=1, signed=1, witnesses=[Witness("thanh-tra.gov.vn")])
    verdict = scene.verify(trust=scene.trust(1))
    vietnamese, english = "\n".join(verdict.lines("vi")), "\n".join(verdict.lines("en"))
    for sentence in (
        "KẾT LUẬN: bằng chứng đúng.",
        "đã nhận văn bản 01938f2a-7c00-7000-8000-00000000a001 lúc 23/11/2026 15:00:00 (UTC+7)",
        "không sai một byte",
        f"Bên nhận xác nhận đã nhận: hệ thống {VAN_YEN} ({VAN_YEN}), lúc 23/11/2026 15:01:00 (UTC+7).",
        "đã ký rằng mình đã nhận văn bản này",
        f"Tệp chưa cho thấy kết quả đối với 1 cơ quan nhận: {LUC_YEN}.",
        "1 bên làm chứng được tin cậy đã ký điểm kiểm tra này: thanh-tra.gov.vn; sớm nhất lúc 23/11/2026 15:02:00",
        "Không chứng minh rằng có người đã đọc hay hiểu văn bản",
        "[CHƯA chứng minh] Chứng thư số: Khóa này thuộc về cơ quan 000.00.00.H63 là do máy chủ liên thông đăng ký",
    ):
        assert sentence in vietnamese, sentence
    for sentence in (
        "VERDICT: proven.",
        f"submitted by the system «tỉnh Yên Bái» for the agency {PROVINCE}",
        "Acknowledged by the recipient",
        "itself signed that it received this message",
        f"The file shows no end yet for 1 of the recipients: {LUC_YEN}.",
        "Unless they help in it, the hub cannot have their signatures for another log.",
        "It does not prove that anybody read or understood the document",
        "keys taken from the hub itself prove nothing against its operator",
    ):
        assert sentence in english, sentence


def test_refused_with_its_reason() -> None:
    scene = Scene(refused=True, signed=1)
    verdict = scene.verify()
    assert verdict.verified
    text = "\n".join(verdict.lines("vi"))
    assert "Bên nhận từ chối" in text and "Lý do: not-competent không thuộc thẩm quyền." in text
    assert "đã ký rằng mình từ chối văn bản này" in text


def test_many_recipients() -> None:
    recipients = tuple(sorted(f"000.{number:02}.{place:02}.H63" for number in range(20) for place in range(15)))
    scene = Scene(recipients=recipients, ended=290, signed=3)
    verdict = scene.verify()
    assert verdict.verified
    assert codes(verdict).count("event") == 290 and codes(verdict).count("recipient_signed") == 3
    (listed,) = [one for one in verdict.findings if one.code == "recipients_listed"]
    assert "list of recipients (300)" in listed.en and "(+288)" in listed.en
    (waiting,) = [one for one in verdict.findings if one.code == "open"]
    assert "no end yet for 10 of the recipients" in waiting.en


def test_a_recipients_copy_does_not_list_the_others() -> None:
    scene = Scene()
    proof = scene.proof()
    verdict = scene.verify(scene.change(proof, recipients=None, events=proof.events[:1]))
    assert verdict.verified
    (found,) = [one for one in verdict.findings if one.step == "recipients"]
    assert found.code == "recipients_withheld" and "2 at the acceptance" in found.en


def test_the_document_may_be_its_payload_alone() -> None:
    """Whoever kept the document without its signature has the signature in the proof."""
    native, entry = Scene(), Scene(format="manifest")
    payload = native.document.split(b".")[1]
    assert native.verify(document=unb64url(payload)).verified
    assert native.verify(document=native.document + b"\r\n").verified
    assert entry.verify(document=entry.content).verified
    assert not native.verify(document=unb64url(payload) + b" ").verified


def test_without_the_document() -> None:
    verdict = Scene().verify(document=None)
    assert not verdict.verified and verdict.failed is not None
    assert verdict.failed.code == "document_missing" and "No document was given" in verdict.failed.en
    assert "sender_needs_document" in codes(verdict)


# -- how it is written ------------------------------------------------------------------------------


def test_one_way_of_writing() -> None:
    scene = Scene()
    proof = scene.proof()
    file = write_proof(proof)
    assert is_proof(file) and read_proof(file) == proof
    assert read_proof(b" \r\n\t" + file + b"\n") == proof
    assert scene.verify(b"\n" + file + b"\n").verified
    pretty = msgspec.json.format(file)
    members = msgspec.json.decode(file)
    for other in (
        pretty,
        file.replace(b'"format"', b'"format" ', 1),
        msgspec.json.encode(dict(reversed(members.items()))),
        msgspec.json.encode(members | {"note": "x"}),
        file[:-1] + b',"signature":"x"}',
        file.replace(b'"size":', b'"size":0', 1),
        file.replace(b"lienthong-proof+1", b"lienthong-proof+2", 1),
        b"\xef\xbb\xbf" + file,
        b"null",
        b"[" * 2000,
    ):
        with pytest.raises(ProofError):
            read_proof(other)


@pytest.mark.parametrize("part", [0, 1, 100, 0.5, -2, -1])
def test_truncated(part: float) -> None:
    scene = Scene()
    file = write_proof(scene.proof())
    cut = file[: int(part * len(file)) if isinstance(part, float) else part]
    verdict = scene.verify(cut)
    assert [one.code for one in verdict.findings] == ["file_unreadable"] and not verdict.verified
    assert "altered or cut" in verdict.findings[0].en and "đã bị sửa, bị cắt" in verdict.findings[0].vi


def test_base64_has_one_writing() -> None:
    assert from_base64("TQ==") == b"M"
    for other in ("TR==", "TQ=", "TQ", "TQ==\n", "T Q=", "TQ==TQ==", "VQ=="[:3] + "é"):
        with pytest.raises(ProofError):
            from_base64(other)


def test_keys_have_one_writing() -> None:
    for alg in ("ES256", "EdDSA", "PS256"):
        text = key_text(generate(alg).public_key())
        assert key_text(read_key(text)) == text
        for other in (text.replace(":", ": ", 1), text[:-1] + ',"kid":"x"}', text[:-3], "null", ""):
            with pytest.raises(ProofError):
                read_key(other)


def test_every_sentence_has_two_languages() -> None:
    for table in (WORDS, LIMITS, KINDS, DEEDS, STEPS, STATUSES, VERDICTS):
        for code, (vietnamese, english) in table.items():
            assert vietnamese and english and vietnamese != english, code
    for table in (WORDS, LIMITS, VERDICTS):
        for code, pair in table.items():
            fields = [sorted({name for _, name, _, _ in string.Formatter().parse(text) if name}) for text in pair]
            assert fields[0] == fields[1], code


# -- whom to trust ----------------------------------------------------------------------------------


def test_trust_file() -> None:
    scene = Scene(witnesses=[Witness("a"), Witness("b")])
    trust = scene.trust(1, anchors=(b"\x30\x00",), timestamp_roots=(b"\x30\x01",))
    again = read_trust(write_trust(trust))
    assert again.hub_keys.keys() == trust.hub_keys.keys() and again.quorum == 1
    assert [str(one) for one in again.witnesses] == [str(one) for one in trust.witnesses]
    assert (again.anchors, again.timestamp_roots) == (trust.anchors, trust.timestamp_roots)
    assert scene.verify(trust=again).verified


def test_trust_that_cannot_be() -> None:
    scene = Scene(witnesses=[Witness("a"), Witness("b")])
    good = scene.trust()
    log, (first, second) = good.logs[0], good.witnesses
    own = Witness("c", scene.key)  # type: ignore[arg-type]
    twice = Witness("a2", scene.witnesses[0].key)
    for complaint, members in {
        "no key of the hub": {"hub_keys": {}},
        "is not a witness's": {"witnesses": (log,)},
        "is a witness's, not a log's": {"logs": (first,)},
        "no second pair of eyes": {"witnesses": (own.verifier,)},
        "have the same key": {"witnesses": (first, twice.verifier)},
        "3 witnesses are asked for, and 2": {"quorum": 3},
        "-1 witnesses": {"quorum": -1},
    }.items():
        with pytest.raises(TrustError, match=complaint):
            Trust(**{"hub_keys": good.hub_keys, "logs": (log,), "witnesses": (first, second)} | members)  # type: ignore[arg-type]
    for file in (b"", b"{}", b'{"format":"lienthong-trust+1","hub_keys":[]}', write_trust(good)[:-3]):
        with pytest.raises(TrustError):
            read_trust(file)
    with pytest.raises(TrustError, match="altered"):
        read_trust(write_trust(good).replace(f"+{first.id.hex()}+".encode(), b"+00000000+"))


def test_verified_long_after() -> None:
    scene = Scene()
    assert scene.verify(now=LATER + timedelta(days=3650)).verified


def test_another_hubs_receipt() -> None:
    """What was relayed holds the receipt of the hub beyond: its own word, if that hub is trusted."""
    here, beyond = Scene(ended=0), Scene(key=generate("EdDSA"))
    event = {"event": "relayed", "at": "2026-11-23T08:00:00Z", "message": MESSAGE, "endpoint": "trục quốc gia"}
    trusting = here.trust()
    trusting = Trust(dict(trusting.hub_keys) | dict(beyond.trust().hub_keys), trusting.logs)
    for members, trust, code, sentence in (
        ({}, trusting, "beyond", "signed a receipt of its own that it accepted this very message at 23/11/2026"),
        ({}, here.trust(), "beyond_untrusted", "is not among the trusted ones"),
        ({"sha256": "ab" * 32}, trusting, "beyond_wrong", "about another message"),
        ({"event": "rejected"}, trusting, "beyond_wrong", "not one of acceptance"),
    ):
        (theirs,) = beyond.seal([here.accepted() | members], NOW)
        (receipt,) = here.seal([event | {"beyond": msgspec.to_builtins(theirs)}], NOW)
        proof = here.change(events=(Evidence(receipt, None, None),))
        verdict = here.verify(proof, trust=trust, now=NOW)
        (found,) = [one for one in verdict.findings if one.code.startswith("beyond")]
        assert found.code == code and sentence in found.en
        assert found.fails == (code == "beyond_wrong")


def test_an_end_tells_of_the_hand_over() -> None:
    """One event says both: since when the recipient's system had it, and when it acknowledged it."""
    scene = Scene()
    event, _ = scene.ends()[1]
    (receipt,) = scene.seal([event | {"handed_over_at": "2026-03-02T01:15:29.900000Z"}], scene.at)
    proof = scene.proof()
    verdict = scene.verify(scene.change(proof, events=(proof.events[0], Evidence(receipt, None, None))))
    told = [one for one in verdict.findings if one.code == "event"]
    assert [one.status for one in told] == ["proven"] * 3
    handed, ended = told[1:]
    assert handed.en.startswith("Handed over to the recipient's system: ") and "08:15:29" in handed.en
    assert handed.vi.startswith("Đã giao cho hệ thống bên nhận: ")
    assert ended.en.startswith("Acknowledged by the recipient: ")


def test_signatures_in_attachments_are_told() -> None:
    scene = Scene(ended=0, promise=None)
    event = {
        "event": "signatures_checked",
        "at": "2026-11-23T08:00:00Z",
        "message": MESSAGE,
        "attachment": {"name": "báo cáo.pdf", "sha256": "ab" * 32, "size": 1},
        "pdf": {"verdict": "invalid", "reason": "x"},
    }
    (receipt,) = scene.seal([event], NOW)
    verdict = scene.verify(scene.change(events=(Evidence(receipt, None, None),)))
    told = "\n".join(verdict.lines("vi"))
    assert "«báo cáo.pdf»" in told and "có chữ ký KHÔNG nguyên vẹn" in told
    assert verdict.verified  # what the hub found is proven to be what it said, whatever it was
