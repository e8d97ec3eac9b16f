"""Auditing when keys are others, and the hub that refuses to sign over tables that were changed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.evidence.integrate import LogBrokenError
from hub.store import sql
from protocol.note import Verifier, read_verifier
from tests.conftest import StartHub
from tests.support import audited
from tests.support.audited import Audited

LOG = sql.load("log")
make_audited = audited.make_audited
scene = audited.scene


async def test_a_log_under_another_key(scene: Audited) -> None:
    assert (await scene.audit()).status == 0
    other = Verifier(scene.origin, Ed25519PrivateKey.generate().public_key())
    told = await scene.audit("--log-key", other)
    assert told.status == 1
    assert "ALARM: The log is not signed with the key that you trust" in told
    assert "Then call again with --log-key" in told


async def test_a_checkpoint_with_a_wrong_signature(scene: Audited) -> None:
    await scene.connection.execute("update checkpoint set note = replace(note, E'\\n5\\n', E'\\n6\\n')")
    told = await scene.audit("--log-key", scene.vkey)
    assert told.status == 1 and "ALARM: The signature on the log is wrong" in told


async def test_the_operator_changes_the_key(scene: Audited, start_hub: StartHub) -> None:
    assert (await scene.audit("--log-key", scene.vkey)).status == 0
    old = scene.hub.hub.integrator
    data = scene.folder / "nút mới"
    second = await start_hub(data_dir=str(data))
    url = second.hub.config.database_url
    await second.hub.integrator.stop()
    assert not second.hub.integrator.ours
    told = await scene.call("log", "use-key", "--yes", "--data-dir", data, "--database-url", url)
    assert told.status == 0 and "signed from now on with" in told, told.text
    told = await scene.call("log", "use-key", "--yes", "--data-dir", data, "--database-url", url)
    assert "has this key already" in told
    await scene.send(3)
    await scene.log(5)
    assert not old.ours, "a node with the old key signs nothing more"
    third = await start_hub(data_dir=str(data))
    await third.hub.integrator.stop()
    await third.hub.integrator.integrate()
    told = await scene.audit()
    assert told.status == 1 and "is not signed with the key that you trust" in told
    vkey = await scene.connection.fetchval(LOG.signer)
    assert read_verifier(vkey).name == scene.origin
    told = await scene.audit("--log-key", vkey)
    assert told.status == 0 and "8 entries; 5 were there at" in told, told.text
    told = await scene.call("log", "status", "--url", third.url)
    assert told.status == 0 and vkey in told and f"Before   {scene.vkey}" in told


async def test_after_a_restore_another_log_is_begun(scene: Audited, start_hub: StartHub) -> None:
    """The old one can never again be what witnesses signed; the new one holds what is still there."""
    await scene.send(5)
    await scene.log(10)
    url = scene.hub.hub.config.database_url
    options = ("--yes", "--database-url", url)
    told = await scene.call("log", "begin", "tỉnh-yên-bái/log-2", *options)
    assert told.status == 1 and "a node was running within the last ten seconds" in told
    await scene.hub.hub.reporter.stop()
    await scene.connection.execute("delete from worker")
    told = await scene.call("log", "begin", scene.origin, *options)
    assert told.status == 1 and "a name is never used for two trees" in told
    told = await scene.call("log", "begin", "hai từ", *options)
    assert told.status == 1 and "has no space" in told
    told = await scene.call("log", "begin", "tỉnh-yên-bái/log-2", *options)
    assert told.status == 0 and f"The log {scene.origin} has ended" in told, told.text
    await scene.hub.hub.integrator.integrate()
    assert not scene.hub.hub.integrator.ours, "a node that still runs signs nothing under the old name"
    assert not await scene.connection.fetchval("select count(*) from checkpoint")
    again = await start_hub(data_dir=scene.hub.hub.config.data_dir)
    await again.hub.integrator.stop()
    while await again.hub.integrator.integrate():
        pass
    vkey = await scene.connection.fetchval(LOG.signer)
    assert vkey.startswith("tỉnh-yên-bái/log-2+")
    told = await scene.audit("--log-key", vkey, "--receipts", scene.receipts, state="mới.json", url=again.url)
    assert "10 entries" in told, told.text


# -- the integrator -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "update log_tile set hashes = set_byte(hashes, 7, 255 - get_byte(hashes, 7))",
        "delete from log_tile",
        "update log_tile set hashes = substr(hashes, 1, 128)",
        "update checkpoint set root = set_byte(root, 0, 255 - get_byte(root, 0))",
        "update checkpoint set size = 4",
        "update checkpoint set note = replace(note, E'\\n5\\n', E'\\n50\\n')",
    ],
)
async def test_the_hub_signs_nothing_over_tables_that_were_changed(scene: Audited, change: str) -> None:
    await scene.send()
    await scene.connection.execute(change)
    before = await scene.connection.fetch("select * from checkpoint")
    with pytest.raises(LogBrokenError, match="not the one that was signed"):
        await scene.hub.hub.integrator.integrate()
    assert await scene.connection.fetch("select * from checkpoint") == before
    assert await scene.connection.fetchval("select count(*) from log_pending") == 1
