"""A hub that changes its history, in the tables or with a second face: its witnesses refuse, with evidence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from hub.app import Hub
from hub.config import make
from hub.evidence.tree import Edge
from hub.listener import listen
from hub.store.embedded import EmbeddedPostgres
from protocol.log import Checkpoint, open_checkpoint, split_hashes
from protocol.misbehaviour import Kind, explain
from protocol.note import signature_line
from tests.conftest import RunningHub
from tests.support import witness_scene
from tests.support.until import until
from tests.support.witness_scene import Scene, follow, settings
from tests.support.witnesses import RunningWitness

impatient = witness_scene.impatient
witnesses = witness_scene.witnesses
scene = witness_scene.scene


async def rewrite(scene: Scene, at: int, size: int) -> None:
    """Change an entry of the stored log as its operator could: tiles, root and signature fit each other again."""
    hub, connection = scene.hub.hub, scene.hub.connection
    hashes = await connection.fetchval("select hashes from log_tile where level = -1 and place = 0")
    entries = split_hashes(hashes)[:size]
    entries[at] = bytes(32)
    edge = Edge()
    edge.append(entries)
    checkpoint = Checkpoint(scene.log.name, size, edge.root())
    note = checkpoint.text + "\n" + signature_line(scene.log.name, hub.integrator._key, checkpoint.text)
    async with connection.transaction():
        for level, place, data in edge.changed():
            await connection.execute(
                "update log_tile set hashes = $3 where level = $1 and place = $2", level, place, data
            )
        await connection.execute("delete from checkpoint where size > $1", size)
        await connection.execute(
            "update checkpoint set root = $2, note = $3 where size = $1", size, checkpoint.root, note
        )


async def odd_size(scene: Scene, *witnesses: RunningWitness) -> int:
    """Send until the newest checkpoint, signed by all, is not of a power of two entries."""
    size = 0
    while size < 3 or size & (size - 1) == 0:
        await scene.send()
        size = (await scene.cosigned(*witnesses, size=size + 1)).size
    return size


async def test_a_hub_that_rewrites_its_log_is_caught_with_evidence(
    scene: Scene, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    size = await odd_size(scene, *witnesses)
    honest = await scene.cosigned(*witnesses)
    await rewrite(scene, 1, size)
    await scene.send()  # the relay works as before, and the log goes on
    for witness in witnesses:
        assert "the log was rewritten" in await scene.refused(witness)
        (found,) = witness.findings()
        assert found.kind is Kind.REWRITTEN and witness.size() == size
        assert explain(found, [scene.log]).startswith(
            f"yenbai.gov.vn/nhật-ký signed a log of {size} entries, and one of"
        )
        assert open_checkpoint(found.known, scene.log)[0] == honest
    metrics = await scene.get("/metrics")
    assert f'lienthong_witness_refuses{{witness="{witnesses[0].verifier.name}"}} 1.0' in metrics
    checkpoint, signed = await scene.checkpoint(*witnesses)
    assert checkpoint.size > size and signed == []


async def test_a_log_that_shrank_is_noticed(
    scene: Scene, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    """As after a database was restored from a copy: the hub itself remembers nothing of what it lost."""
    first, _ = witnesses
    await scene.send(3)
    before = await scene.cosigned(*witnesses, size=3)
    await scene.send(3)
    size = (await scene.cosigned(*witnesses, size=before.size + 1)).size
    await scene.hub.hub.integrator.stop()
    await scene.hub.hub.witnessing.stop()
    await scene.hub.connection.execute("delete from checkpoint where size > $1", before.size)
    await scene.hub.connection.execute("truncate witness, checkpoint_signature")
    scene.hub.hub.witnessing.start()
    told = await scene.refused(first)
    assert told.startswith(
        f"it signed a log of {size} entries, and this hub's has {before.size}: the log shrank ("
    )
    assert first.size() == size


@pytest.fixture
async def other_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The address of another database than the test's."""
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(postgres.url.replace("/lienthong?", "/postgres?"))
    await connection.execute(f'create database "{name}" template lienthong')
    yield postgres.url.replace("/lienthong?", f"/{name}?")
    await connection.execute(f'drop database "{name}" with (force)')
    await connection.close()


async def test_a_hub_with_two_faces_is_caught_with_evidence(
    scene: Scene, witnesses: tuple[RunningWitness, RunningWitness], other_database: str
) -> None:
    """A second hub with the same key and name shows others another history."""
    first, _ = witnesses
    await scene.send(3)
    size = (await scene.cosigned(*witnesses, size=3)).size
    config = make(
        database_url=other_database, port=0, data_dir=scene.hub.hub.config.data_dir, **settings(*witnesses)
    )
    other = Hub(config, other_database)
    connection = await asyncpg.connect(other_database)
    await other.start()
    try:
        listener = listen("127.0.0.1", 0)
        other.serve(listener, None)
        port = listener.getsockname()[1]
        face = await follow(RunningHub(other, f"http://127.0.0.1:{port}", connection), scene.http)
        assert str(face.log) == str(scene.log)
        # It must reach the very size that the witnesses signed, one event at a time.
        while (await face.checkpoint())[0].size < size:
            assert "the log shrank" in await face.refused(first)
            before = (await face.checkpoint())[0].size
            await face.send()

            async def grown(before: int = before) -> bool:
                return (await face.checkpoint())[0].size > before

            await until(grown, "the other log grew")

        async def caught() -> bool:
            return "signed another log" in (await face.status(first)).get("refused", "")

        await until(caught, "the witness refuses the other face")
        for witness in witnesses:
            (found,) = await until(witness.findings, "the witness keeps the evidence")
            assert found.kind is Kind.TWO_FACES
            assert (
                explain(found, [scene.log])
                == f"yenbai.gov.vn/nhật-ký signed two different logs of {size} entries."
            )
    finally:
        await other.stop()
        await connection.close()
    # The first face goes on: the witness cannot know which is the true one, but it signs only one.
    await scene.send()
    await scene.cosigned(*witnesses, size=size + 1)
