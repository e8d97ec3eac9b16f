"""Receipts written in bulk are those that the protocol writes one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.relay import events
from protocol.evidence import (
    SEAL_TYPE,
    EventKind,
    Sealer,
    Tree,
    leaf_hash,
    read_receipt,
    receipt,
    verify_receipt,
)
from protocol.signature import Signer, generate, thumbprint
from tests.support import second_verifier

KEY = generate("EdDSA")
KEYS = {thumbprint(KEY.public_key()): KEY.public_key()}
SEALER = Sealer("truc.h63", Signer(KEY, typ=SEAL_TYPE))
MESSAGE = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
DIGEST = bytes(range(32))
AT = "2026-03-02T01:15:30.000005Z"


def texts(size: int) -> list[str]:
    """Events with everything that JSON must escape."""
    return [
        events.rejected(AT, MESSAGE, "ubnd-tỉnh", DIGEST, "bad-document", f'"lý do" \\ {number}\n\x01\u2028 đủ')
        for number in range(size)
    ]


@pytest.mark.parametrize("size", range(1, 71))
def test_the_bytes_are_those_of_to_json(size: int) -> None:
    batch = texts(size)
    tree = Tree([leaf_hash(event.encode()) for event in batch])
    seal = SEALER.seal(tree, "lô", datetime.now(UTC))
    written = events.receipts_json(tree, batch, seal)
    assert written == [receipt(event, index, tree, seal).to_json() for index, event in enumerate(batch)]
    for index in {0, size // 2, size - 1}:
        assert verify_receipt(read_receipt(written[index]), KEYS.get).event["rejection"] == str(MESSAGE)


@pytest.mark.parametrize("size", [1, 2, 3, 70])
def test_a_stored_event_gets_the_receipt_that_it_had(size: int) -> None:
    batch = texts(size)
    leaves = [leaf_hash(event.encode()) for event in batch]
    tree = Tree(leaves)
    seal = SEALER.seal(tree, "lô", datetime.now(UTC))
    stored = b"".join(leaves)
    assert events.leaves_of(stored) == leaves
    for index, event in enumerate(batch):
        assert events.stored_receipt(event, index, stored, seal) == receipt(event, index, tree, seal)


def test_a_text_that_is_not_what_was_sealed_gets_no_receipt() -> None:
    batch = texts(3)
    stored = b"".join(leaf_hash(event.encode()) for event in batch)
    assert events.stored_receipt(batch[0] + " ", 0, stored, "") is None
    assert events.stored_receipt(batch[0], 1, stored, "") is None
    assert events.stored_receipt(batch[0], 3, stored, "") is None
    assert events.stored_receipt(batch[2], -1, stored, "") is None


def test_the_texts_of_events_never_change() -> None:
    """Ends of deliveries are derived again years later: these very bytes are under seals."""
    kinds = (EventKind.ACKNOWLEDGED, EventKind.REFUSED, EventKind.EXPIRED, EventKind.RECALLED)
    assert kinds == events.ENDED_KINDS
    about = events.about(MESSAGE, "H63", "7/UBND", DIGEST, "văn-yên", ["000.00.31.H63"])
    said = (
        '"at":"2026-03-02T01:15:30.000005Z","message":"01890a5d-ac96-774b-bcce-b302099a8057",'
        f'"from":"H63","id":"7/UBND","sha256":"{DIGEST.hex()}","endpoint":"văn-yên","recipients":["000.00.31.H63"]'
    )
    before_there_were_codes = events.of_delivery(EventKind.REFUSED, AT, about, None, "sai nơi nhận")
    assert before_there_were_codes == f'{{"event":"refused",{said},"reason":"sai nơi nhận"}}'
    refused = events.of_delivery(EventKind.REFUSED, AT, about, "wrong-recipient", "sai nơi nhận", "ab" * 32)
    assert refused == (
        f'{{"event":"refused",{said},"code":"wrong-recipient","reason":"sai nơi nhận",'
        f'"acknowledgement":"{"ab" * 32}"}}'
    )
    assert events.of_delivery(EventKind.ACKNOWLEDGED, AT, about) == f'{{"event":"acknowledged",{said}}}'
    assert events.of_delivery(EventKind.HANDED_OVER, AT, about) == f'{{"event":"handed_over",{said}}}'
    both = events.of_delivery(EventKind.ACKNOWLEDGED, AT, about, None, None, "ab" * 32, AT)
    assert both == f'{{"event":"acknowledged",{said},"acknowledgement":"{"ab" * 32}","handed_over_at":"{AT}"}}'
    accepted = orjson.loads(
        events.accepted(AT, MESSAGE, "ubnd", "H63", "7", DIGEST, 2048, "express", 3, "ab" * 32, [])
    )
    assert accepted == {
        "event": "accepted",
        "at": AT,
        "message": str(MESSAGE),
        "from": "H63",
        "id": "7",
        "endpoint": "ubnd",
        "sha256": DIGEST.hex(),
        "size": 2048,
        "lane": "express",
        "recipients": 3,
        "recipients_sha256": "ab" * 32,
    }
    gaps = [{"recipient": "X", "reason": "không có"}]
    with_gaps = events.accepted(AT, MESSAGE, "ubnd", "H63", "7", DIGEST, 1, "normal", 1, "", gaps)
    assert orjson.loads(with_gaps)["unreachable"] == gaps


def test_the_second_verifier_accepts_a_bulk_receipt() -> None:
    batch = texts(5)
    tree = Tree([leaf_hash(event.encode()) for event in batch])
    written = events.receipts_json(tree, batch, SEALER.seal(tree, "lô", datetime.now(UTC)))
    key = KEY.public_key().public_bytes_raw()
    jwks = [{"kty": "OKP", "crv": "Ed25519", "x": second_verifier.encode64(key), "kid": next(iter(KEYS))}]
    assert second_verifier.prove(orjson.loads(written[4]), jwks) == orjson.loads(batch[4])


@given(st.text(), st.text(), st.lists(st.text(), min_size=1), st.none() | st.text(min_size=1))
def test_an_event_is_json_however_names_are_written(
    name: str, sender_id: str, codes: list[str], reason: str | None
) -> None:
    unreachable = [{"recipient": code, "reason": name} for code in codes]
    accepted = events.accepted(AT, MESSAGE, name, name, sender_id, DIGEST, 7, "normal", 1, "00", unreachable)
    about = events.about(MESSAGE, name, sender_id, DIGEST, name, codes)
    ended = events.of_delivery(EventKind.REFUSED, AT, about, "other", reason)
    for text in (accepted, ended):
        members = orjson.loads(text)
        assert orjson.dumps(members).decode() == text
        assert (members["from"], members["id"], members["endpoint"]) == (name, sender_id, name)
    assert orjson.loads(accepted)["unreachable"] == unreachable
    assert orjson.loads(ended)["recipients"] == codes
    assert orjson.loads(ended).get("reason") == reason


def test_who_signed_stands_last_and_only_where_somebody_did() -> None:
    signer = '{"kid":"k","certificate":"ab"}'
    plain = events.accepted(AT, MESSAGE, "ubnd", "H63", "7", DIGEST, 1, "normal", 1, "", [])
    signed = events.accepted(AT, MESSAGE, "ubnd", "H63", "7", DIGEST, 1, "normal", 1, "", [], signer)
    assert signed == plain[:-1] + f',"signer":{signer}}}'
    assert orjson.loads(signed)["signer"] == {"kid": "k", "certificate": "ab"}
