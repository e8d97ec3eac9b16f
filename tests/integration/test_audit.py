"""Auditing a hub whose database somebody changed: each change is caught, and the auditor reads what it means."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.store.embedded import EmbeddedPostgres
from protocol.evidence import Promise
from protocol.ids import uuid7
from protocol.note import Verifier
from tests.support import audited
from tests.support.audited import Audited, MakeAudited
from tests.support.desk import open_desk

TWO_DAYS = timedelta(days=2)
make_audited = audited.make_audited
scene = audited.scene


async def test_an_entry_that_was_changed(scene: Audited) -> None:
    await scene.connection.execute("update log_tile set hashes = set_byte(hashes, 40, 255 - get_byte(hashes, 40))")
    told = await scene.audit("--log-key", scene.vkey)
    assert told.status == 1
    assert "ALARM: The log's contents are not what the hub signed" in told
    assert "Nội dung nhật ký khác với những gì trục đã ký" in told
    assert "TAMPERING FOUND" in told and "(entries 0 to 4)" in told


async def test_an_entry_of_long_ago_is_named(scene: Audited) -> None:
    await scene.send(600)
    await scene.log(605)
    assert (await scene.audit("--log-key", scene.vkey)).status == 0
    change = (
        "update log_tile set hashes = set_byte(hashes, $1, 255 - get_byte(hashes, $1))"
        " where level = -1 and place = 1"
    )
    await scene.connection.execute(change, 32 * 10)
    for _ in range(2):  # and it stays noticed
        told = await scene.audit("--full")
        assert told.status == 1
        assert "the tile tile/0/001 is not the one that was signed (entries 256 to 511)" in told
    assert (await scene.audit()).status == 1
    await scene.connection.execute(change, 32 * 10)
    assert (await scene.audit()).status == 0


async def test_a_row_of_the_tree_that_is_gone(scene: Audited) -> None:
    await scene.send(600)
    await scene.log(605)
    await scene.connection.execute("delete from log_tile where level = -1 and place = 0")
    told = await scene.audit("--log-key", scene.vkey)
    assert told.status == 1
    assert "The hub does not show a part of the log that it signed" in told and "(entries 0 to 255)" in told


async def test_a_history_that_was_rewritten_with_the_real_key(scene: Audited) -> None:
    assert (await scene.audit("--log-key", scene.vkey)).status == 0
    await scene.send(3)
    await scene.log(8)
    await scene.rewrite(1)
    assert (await scene.audit("--log-key", scene.vkey, state=None)).status == 0, "who sees it first sees nothing"
    told = await scene.audit()
    assert told.status == 1
    assert "ALARM: The hub rewrote its history" in told and "Trục đã sửa lại lịch sử" in told
    assert "signed a log of 5 entries, and one of 8 that begins differently" in told
    (file,) = scene.evidence()
    assert str(file) in told
    await check_alone(scene, file, "signed a log of 5 entries, and one of 8 that begins differently")
    assert (await scene.audit()).status == 1, "what contradicts is not what is remembered"


async def check_alone(scene: Audited, file: Path, words: str) -> None:
    """The evidence convinces somebody who has nothing else, and not when a byte of it is changed."""
    told = await scene.call("audit", "--check", file, "--log-key", scene.vkey)
    assert told.status == 0 and words in told and "This evidence is genuine" in told, told.text
    told = await scene.call("audit", "--check", file)
    assert "keys that the file itself names" in told and scene.vkey in told
    stranger = Verifier(scene.origin, Ed25519PrivateKey.generate().public_key())
    assert "Error" in await scene.call("audit", "--check", file, "--log-key", stranger)
    members = orjson.loads(file.read_bytes())
    for name in ("known", "presented"):
        altered = orjson.loads(file.read_bytes())
        lines = members["misbehaviour"][name].split("\n")
        lines[1] = str(int(lines[1]) + 1)
        altered["misbehaviour"][name] = "\n".join(lines)
        copy = scene.folder / "altered.json"
        copy.write_bytes(orjson.dumps(altered))
        assert "cannot be relied on" in await scene.call("audit", "--check", copy)


@pytest.mark.parametrize("size", [4, 6])
async def test_a_rewritten_history_of_any_size_leaves_proof(make_audited: MakeAudited, size: int) -> None:
    """A consistency proof leaves out the root of a power of two; the evidence has it."""
    scene = await make_audited()
    await scene.send(size)
    await scene.log(size)
    assert (await scene.audit("--log-key", scene.vkey)).status == 0
    await scene.send(1)
    await scene.log(size + 1)
    await scene.rewrite(0)
    assert (await scene.audit()).status == 1
    (file,) = scene.evidence()
    await check_alone(scene, file, f"signed a log of {size} entries, and one of {size + 1}")


async def test_two_faces_of_one_size(scene: Audited) -> None:
    assert (await scene.audit("--log-key", scene.vkey)).status == 0
    await scene.rewrite(2)
    told = await scene.audit()
    assert told.status == 1
    assert "ALARM: The hub shows different logs to different people" in told
    assert "signed two different logs of 5 entries" in told
    (file,) = scene.evidence()
    await check_alone(scene, file, "signed two different logs of 5 entries")


async def test_another_auditor_was_shown_another_log(scene: Audited) -> None:
    """Two auditors who compare what they have seen need no witness."""
    assert (await scene.audit("--log-key", scene.vkey, state="một.json")).status == 0
    await scene.rewrite(2)
    await scene.send(4)
    await scene.log(9)
    assert (await scene.audit("--log-key", scene.vkey, state="hai.json")).status == 0
    told = await scene.audit("--seen", scene.folder / "một.json", state="hai.json")
    assert told.status == 1
    assert "ALARM: The hub rewrote its history" in told
    assert f"the auditor of {scene.folder / 'một.json'}" in told.text.replace("\n", "")
    (file,) = scene.evidence()
    await check_alone(scene, file, "signed a log of 5 entries, and one of 9")


async def test_two_hubs_of_one_key_show_two_logs(
    scene: Audited, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Each auditor is led to another hub, and finds it in order; together they have proof."""
    async with open_desk(postgres, tmp_path / "data", log_name=scene.origin) as other:
        await other.hub.integrator.stop()
        leaves = b"".join(hashlib.sha256(f"giả {number}".encode()).digest() for number in range(7))
        await other.connection.execute("insert into batch values ($1, now(), 0, $2, '')", uuid7(), leaves)
        await other.hub.integrator.integrate()
        assert (await scene.audit("--log-key", scene.vkey, state="một.json")).status == 0
        assert (await scene.audit("--log-key", scene.vkey, state="hai.json", url=other.url)).status == 0
        told = await scene.audit("--seen", scene.folder / "một.json", state="hai.json", url=other.url)
        assert told.status == 1 and "ALARM: The hub rewrote its history" in told
        (file,) = scene.evidence()
        await check_alone(scene, file, "signed a log of 5 entries, and one of 7")
        # Or one of them is led to both.
        told = await scene.audit("--log-key", scene.vkey, state="một.json", url=other.url)
        assert told.status == 1 and "ALARM: The hub rewrote its history" in told
        told = await scene.audit("--log-key", scene.vkey, state="hai.json")
        assert told.status == 1 and "had 7 entries; now 5 are shown" in told


async def test_a_hub_that_was_set_back(scene: Audited) -> None:
    restore = await scene.back_up()
    await scene.send(4)
    await scene.log(9)
    assert (await scene.audit("--log-key", scene.vkey)).status == 0
    await restore()
    told = await scene.audit()
    assert told.status == 1
    assert "ALARM: The log has become shorter" in told
    assert "had 9 entries; now 5 are shown" in told
    assert "ask the hub's operator whether a backup was restored" in told
    assert scene.evidence() == []
    # It goes on from there, and that is proof.
    await scene.send(6)
    await scene.log(11)
    told = await scene.audit()
    assert told.status == 1 and "ALARM: The hub rewrote its history" in told
    (file,) = scene.evidence()
    await check_alone(scene, file, "signed a log of 9 entries, and one of 11")


async def test_a_batch_that_was_removed_before_it_was_logged(scene: Audited) -> None:
    (sent,) = await scene.send()
    await scene.connection.execute("delete from batch where id in (select batch from log_pending)")
    await scene.log(5)
    told = await scene.audit("--log-key", scene.vkey, "--receipts", scene.receipts)
    assert told.status == 0, told.text
    scene.clock = TWO_DAYS
    told = await scene.audit("--log-key", scene.vkey, "--receipts", scene.receipts, "--full")
    assert told.status == 1
    assert "ALARM: The hub broke a promise: an event is not in the log" in told
    assert f"{sent.id}.receipt.json" in told.text.replace("\n", "")
    assert "Keep the receipt: it proves that the event happened" in told
    assert "ALARM: The log stands still" in told  # its place stays empty
    (file,) = scene.evidence()
    told = await scene.call("audit", "--check", file, "--log-key", scene.vkey)
    assert told.status == 1, told.text  # the real clock: the promise is not over
    assert "the promise is not broken yet" in told


async def test_a_promise_for_ever(scene: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that was altered to promise the log within ten years could never be caught by its promise."""
    promise = Promise(scene.origin, 3650 * 86_400.0)
    monkeypatch.setattr(scene.hub.hub._sealer, "_promise", promise)
    (sent,) = await scene.send()
    told = await scene.audit("--log-key", scene.vkey, "--receipts", scene.receipts)
    assert told.status == 1
    assert "ALARM: An event is not in the log, and the hub gave itself too long for it" in told
    assert f"{sent.id}.receipt.json" in told.text.replace("\n", "")
    assert "A promise of more than a week binds nobody" in told
    await scene.log(6)
    told = await scene.audit("--log-key", scene.vkey, "--receipts", scene.receipts)
    assert told.status == 0, told.text


async def test_a_batch_that_was_removed_after_it_was_logged(scene: Audited) -> None:
    await scene.connection.execute("delete from batch")
    told = await scene.audit("--log-key", scene.vkey, "--receipts", scene.receipts)
    assert told.status == 0, "the log proves it still"
    assert "5 are in the log" in told
    told = await scene.audit("--token-file", scene.token)
    assert told.status == 1
    assert "ALARM: An event of the log has been deleted from the hub's database" in told


async def test_a_message_that_was_deleted(scene: Audited) -> None:
    await scene.connection.execute("delete from message")
    told = await scene.audit("--log-key", scene.vkey, "--token-file", scene.token)
    assert told.status == 1
    assert "ALARM: An event of the log has been deleted from the hub's database" in told
    assert "Một sự kiện trong nhật ký đã bị xóa khỏi cơ sở dữ liệu" in told


async def test_an_event_whose_text_was_changed(scene: Audited) -> None:
    await scene.connection.execute(
        'update message set event = replace(event, \'"lane":"normal"\', \'"lane":"express"\')'
    )
    told = await scene.audit("--log-key", scene.vkey, "--token-file", scene.token)
    assert told.status == 1
    assert "ALARM: An event in the hub's database is not the one in its log" in told


async def test_leaves_that_were_changed_after_they_were_logged(scene: Audited) -> None:
    await scene.connection.execute("update batch set leaves = set_byte(leaves, 3, 255 - get_byte(leaves, 3))")
    told = await scene.audit("--log-key", scene.vkey, "--token-file", scene.token, "--events", "200")
    assert told.status == 1
    assert "ALARM: The hub can no longer prove an event of its own" in told


async def test_leaves_that_were_changed_before_they_were_logged(scene: Audited) -> None:
    (sent,) = await scene.send()
    await scene.connection.execute(
        "update batch set leaves = set_byte(leaves, 3, 255 - get_byte(leaves, 3))"
        " where id in (select batch from log_pending)"
    )
    await scene.log(6)
    scene.clock = TWO_DAYS
    told = await scene.audit("--log-key", scene.vkey, "--receipts", scene.receipts)
    assert told.status == 1
    assert "ALARM: The hub broke a promise" in told and "what it gives as proof is wrong" in told
    assert f"{sent.id}.receipt.json" in told.text.replace("\n", "")
    told = await scene.audit("--token-file", scene.token, "--events", "300")
    assert "ALARM: An event in the hub's database is not the one in its log" in told


async def test_a_log_that_stands_still(scene: Audited) -> None:
    assert (await scene.audit("--log-key", scene.vkey)).status == 0
    await scene.send()
    assert (await scene.audit()).status == 0
    scene.clock = TWO_DAYS
    told = await scene.audit()
    assert told.status == 1
    assert "ALARM: The log stands still" in told and "1 batches of events wait" in told


async def test_an_event_that_was_logged_too_late(scene: Audited) -> None:
    await scene.send()
    scene.clock = TWO_DAYS
    assert (await scene.audit("--log-key", scene.vkey)).status == 1  # it stands still
    await scene.log(6)
    told = await scene.audit("--receipts", scene.receipts)
    assert told.status == 1
    assert "ALARM: The hub logged an event later than it had promised" in told
    assert "It is entry 5 now" in told
