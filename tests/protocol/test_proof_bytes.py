"""Whatever byte of a proof is another one, it is refused: one by one over a whole file, and at random."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.proof import ProofError, read_proof, write_proof
from protocol.proof_verify import verify_proof
from tests.support.parties import VAN_YEN
from tests.support.proofs import LATER, Scene, Witness

SCENE = Scene(recipients=(VAN_YEN,), ended=1, signed=1, witnesses=[Witness("a"), Witness("b")], alg="EdDSA")
ENTRY = Scene(format="manifest", recipients=(VAN_YEN,), ended=1, signed=0, alg="EdDSA")
FILES = {scene.format: write_proof(scene.proof()) for scene in (SCENE, ENTRY)}
SCENES = {"jws": SCENE, "manifest": ENTRY}
TRUST = {"jws": SCENE.trust(2), "manifest": ENTRY.trust()}


def verified(format_: str, file: bytes) -> bool:
    return verify_proof(file, SCENES[format_].document, TRUST[format_], LATER).verified


@pytest.mark.parametrize("format_", FILES)
def test_every_byte(format_: str) -> None:
    file = FILES[format_]
    assert verified(format_, file)
    for place, byte in enumerate(file):
        for other in {byte ^ 1, byte ^ 0x20, 0x20} - {byte}:
            assert not verified(format_, file[:place] + bytes([other]) + file[place + 1 :]), (place, other)
        assert not verified(format_, file[:place] + file[place + 1 :]), place
        assert not verified(format_, file[:place] + b" " + file[place:]) or place == 0


@pytest.mark.parametrize("format_", FILES)
def test_every_byte_though_the_hub_signs_it(format_: str) -> None:
    """Whoever has the hub's key can sign any file. Still no byte of what it says can be another one.

    With another key the witnesses' and the recipient's signatures could not be had, so this is what a thief of the
    hub's key can do to a file that somebody has.
    """
    file = FILES[format_]
    scene = SCENES[format_]
    signable = 0
    for place, byte in enumerate(file):
        try:
            changed = read_proof(file[:place] + bytes([byte ^ 1]) + file[place + 1 :])
        except ProofError:
            continue
        signable += 1
        again = write_proof(scene.sign(changed))
        assert again == file or not verified(format_, again), (place, chr(byte))
    assert signable > 1000


@given(st.binary(max_size=300))
def test_anything(data: bytes) -> None:
    assert not verified("jws", data)
    assert not verified("jws", b'{"format":"lienthong-proof+1",' + data)


@settings(max_examples=300)
@given(st.integers(0, len(FILES["jws"])), st.integers(0, 40), st.binary(max_size=40))
def test_splices(start: int, length: int, other: bytes) -> None:
    file = FILES["jws"]
    changed = file[:start] + other + file[start + length :]
    assert verified("jws", changed) == (changed.strip(b" \t\r\n") == file)


@given(st.binary(max_size=200))
def test_any_document(data: bytes) -> None:
    assert not verify_proof(FILES["jws"], data, TRUST["jws"], LATER).verified
    assert not verify_proof(FILES["manifest"], data, TRUST["manifest"], LATER).verified
