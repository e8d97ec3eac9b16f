"""What a client signs for: what it was given, each once, and nothing that it does not know."""

from __future__ import annotations

import pytest

from protocol.acknowledgement import read_acknowledgement
from protocol.client.model import ClientError, Entry
from protocol.client.signing import Ledger
from protocol.signature import Signer, generate
from protocol.stream import Refusal

SIGNER = Signer(generate("EdDSA"))


def entry(seq: int, lane: str = "normal") -> Entry:
    return Entry(seq, lane, f"id-{seq}", "H63", f"{seq}/UBND", ("H63",), "jws", f"{seq:064x}", 10, "")


def signed(ledger: Ledger, *seqs: int, refuse: tuple[Refusal, ...] = ()) -> tuple[list[int], list[int]]:
    jws = ledger.sign(seqs, refuse)
    if not jws:
        return [], []
    _, statement = read_acknowledgement(jws.encode())
    return list(statement.entries), [one.seq for one in statement.refused]


def test_a_cursor_names_what_was_given_up_to_it_in_each_lane() -> None:
    ledger = Ledger(SIGNER)
    for seq, lane in ((3, "express"), (5, "normal"), (7, "express"), (9, "normal")):
        ledger.given(entry(seq, lane))
    assert ledger.named((), (3, 0, 9)) == [3, 5, 9]
    assert ledger.named([9, entry(7, "express")], (0, 0, 5)) == [9, 7, 5]
    with pytest.raises(ClientError, match="was not given the entry 4"):
        ledger.named([4], (0, 0, 0))


def test_each_is_said_once_and_a_refusal_is_no_acknowledgement() -> None:
    ledger = Ledger(SIGNER)
    for seq in (1, 2, 3, 4):
        ledger.given(entry(seq))
    assert signed(ledger, 2, 2, 1) == ([2, 1], [])
    assert signed(ledger, 1, 2, 3, refuse=(Refusal(2, "trùng", "duplicate"),)) == ([1, 3], [2])
    ledger.done([1, 2, 3])
    assert signed(ledger, 1, 2, 3) == ([], []), "it is on disk"
    assert signed(ledger, 3, 4, refuse=(Refusal(1, "trùng"),)) == ([4], [])


def test_the_oldest_are_forgotten() -> None:
    ledger = Ledger(SIGNER, limit=2)
    for seq in (1, 2, 3):
        ledger.given(entry(seq))
    assert ledger.named((), (9, 9, 9)) == [2, 3]
