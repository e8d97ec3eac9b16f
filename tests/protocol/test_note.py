"""Signed notes and cosignatures, as c2sp.org writes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.note import (
    COSIGNATURE,
    NoteError,
    Verifier,
    read_note,
    read_verifier,
    signature_line,
    verify_note,
)

TEXT = "Cộng hòa\n\nĐộc lập - Tự do - Hạnh phúc\n"
AT = datetime(2026, 11, 23, 17, 0, 30, tzinfo=UTC)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def test_the_example_of_the_specification_is_genuine() -> None:
    """The published example of c2sp.org/tlog-cosignature can be taken apart; its key ids are four bytes."""
    note = read_note(
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9n"
        "To+zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5"
        "nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    plain, cosigned = note.signatures
    assert (plain.name, plain.id.hex(), len(plain.signature)) == ("example.com/behind-the-sofa", "033de0ae", 64)
    assert int.from_bytes(cosigned.signature[:8]) == 1679315147


def test_a_note_is_signed_and_cosigned(key: Ed25519PrivateKey) -> None:
    log = Verifier("ubnd.yenbai.gov.vn/log", key.public_key())
    witness = Verifier("sở-nội-vụ/w1", key.public_key(), COSIGNATURE)
    written = TEXT + "\n" + signature_line(log.name, key, TEXT) + signature_line(witness.name, key, TEXT, AT)
    note = read_note(written)
    assert str(note) == written
    assert note.text == TEXT
    assert [(one.verifier, one.at) for one in verify_note(note, [log, witness])] == [(log, None), (witness, AT)]
    assert verify_note(note, [Verifier("ai đó".replace(" ", "-"), key.public_key())]) == []


@pytest.mark.parametrize("kind", [1, COSIGNATURE])
def test_a_verifier_key_is_read_as_written(key: Ed25519PrivateKey, kind: int) -> None:
    verifier = Verifier("ubnd.yenbai.gov.vn/log", key.public_key(), kind)
    again = read_verifier(str(verifier) + "\n")
    assert (again.name, again.kind, again.id, again.public) == (verifier.name, kind, verifier.id, verifier.public)


def test_a_signature_of_a_trusted_key_that_is_wrong_spoils_the_note(key: Ed25519PrivateKey) -> None:
    verifier = Verifier("a", key.public_key())
    note = read_note(TEXT.replace("Hạnh", "hạnh") + "\n" + signature_line("a", key, TEXT))
    with pytest.raises(NoteError, match="signature of a is wrong"):
        verify_note(note, [verifier])


def test_the_time_of_a_cosignature_is_covered_by_it(key: Ed25519PrivateKey) -> None:
    witness = Verifier("w", key.public_key(), COSIGNATURE)
    note = read_note(TEXT + "\n" + signature_line("w", key, TEXT, AT))
    signature = bytearray(note.signatures[0].signature)
    signature[7] ^= 1
    with pytest.raises(NoteError, match="wrong"):
        witness.check(TEXT, bytes(signature))
    with pytest.raises(NoteError, match="no possible time"):
        witness.check(TEXT, b"\x7f" + bytes(signature[1:]))
    with pytest.raises(NoteError, match="length"):
        witness.check(TEXT, bytes(signature[:-1]))


@pytest.mark.parametrize(
    "written",
    [
        b"\xff\n\n\xe2\x80\x94 a AAAAAAA=\n",
        "no signature\n",
        "text\n\n- a AAAAAAA=\n",
        "text\n\n— a !!!\n",
        "text\n\n— a AAAA\n",
        "text\n\n— a AAAAAAA=",
        "te\rxt\n\n— a AAAAAAA=\n",
        "x" * 70_000,
    ],
)
def test_what_is_no_note_is_refused(written: bytes | str) -> None:
    with pytest.raises(NoteError):
        read_note(written)


def test_a_note_with_very_many_signatures_is_refused(key: Ed25519PrivateKey) -> None:
    note = read_note("a\n\n" + "— a AAAAAAA=\n" * 65)
    with pytest.raises(NoteError, match="more than 64"):
        verify_note(note, [])


@pytest.mark.parametrize("vkey", ["", "a", "a+b", "a+00000000+AQ==", "a b+00000000+" + "A" * 44, "a+00000000+%%"])
def test_what_is_no_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(NoteError):
        read_verifier(vkey)


def test_a_line_that_is_repeated_is_checked_once(key: Ed25519PrivateKey) -> None:
    class Counting(Verifier):
        checks = 0

        def check(self, text: str, signature: bytes) -> datetime | None:
            Counting.checks += 1
            return super().check(text, signature)

    text = "trục.yenbai.gov.vn/log\n1\nAA==\n"
    line = signature_line("trục.yenbai.gov.vn/log", key, text)
    found = verify_note(read_note(text + "\n" + line * 64), [Counting("trục.yenbai.gov.vn/log", key.public_key())])
    assert (len(found), Counting.checks) == (1, 1)


def test_an_altered_verifier_key_is_told(key: Ed25519PrivateKey) -> None:
    _, id_, data = str(Verifier("a", key.public_key())).split("+", 2)
    with pytest.raises(NoteError, match="altered"):
        read_verifier(f"b+{id_}+{data}")
    with pytest.raises(NoteError, match="type 7"):
        read_verifier(str(Verifier("a", key.public_key(), 7)))
