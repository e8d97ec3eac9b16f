"""What the pages on the stream and on manifests say is true: frames, tables, limits, examples, programs."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import msgspec
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hub.config import Config
from hub.doors import stream as door
from hub.relay.mail import INLINE_BYTES
from protocol.client import transport
from protocol.manifest import MAX_DOCUMENTS, open_entry, open_manifest, seal_manifest
from protocol.problems import CATALOGUE
from protocol.signature import Signer, to_jwk
from protocol.stream import (
    CLOSE_GOING_AWAY,
    CLOSE_INTERNAL,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    CLOSE_PROTOCOL,
    CLOSE_TRY_LATER,
    MAX_ACKS,
    MAX_ANSWER_BYTES,
    MAX_FRAME_BYTES,
    MAX_MESSAGES,
    SUBPROTOCOL,
    TABLE,
    ClientFrame,
    Frame,
    HubFrame,
    Role,
    State,
)
from tests.integration import test_readme as readme
from tests.integration.test_readme import ADDRESS, Reader, blocks, page, table
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.second_verifier import decode64, leaf, prove_entry, tree_hash

reader = readme.reader
STREAM, MANIFESTS = page("stream.md"), page("manifests.md")
FRAMES = STREAM.split("\n## Frames\n")[1].split("\n## States\n")[0]
D = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
"""The private key of RFC 7515, appendix A.3."""


# -- the stream -----------------------------------------------------------------------------------------


def tag(kind: type[Frame]) -> str:
    return str(kind.__struct_config__.tag)


def test_every_frame_is_shown_under_its_name() -> None:
    read = {
        Role.CLIENT: msgspec.json.Decoder(ClientFrame),
        Role.HUB: msgspec.json.Decoder(HubFrame),
    }
    kinds = {tag(kind): kind for moves in TABLE.values() for to in moves.values() for kind in to}
    sections = dict(section.split("\n", 1) for section in FRAMES.split("\n### ")[1:])
    assert set(sections) == set(kinds)
    for name, text in sections.items():
        examples = blocks(text, "json")
        assert examples, name
        for example in examples:
            members = orjson.loads(example)
            assert members["type"] == name
            frames = []
            for role, decoder in read.items():
                if any(kinds[name] in moves[role] for moves in TABLE.values()):
                    frames.append(decoder.decode(example))
            assert frames
            for frame in frames:
                assert type(frame) is kinds[name]
                # Nothing is shown that the frame does not have.
                assert set(members) - {"type"} <= {field.encode_name for field in msgspec.structs.fields(frame)}


def test_problems_in_the_examples_are_those_of_the_catalogue() -> None:
    for example in blocks(FRAMES, "json"):
        frame = orjson.loads(example)
        outcomes = [one for answer in frame.get("answers", ()) for one in answer["outcomes"]]
        for problem in [frame["problem"]] if "problem" in frame else outcomes:
            if problem["status"] >= 400:
                kind = CATALOGUE[problem["code"]]
                assert (problem["title"], problem["status"]) == (kind.title, kind.status)
                assert (problem["fault"], problem["retryable"]) == (kind.fault, kind.retryable)


def moves(state: State, role: Role) -> str:
    """A cell of the table of states."""
    cells = []
    for kind, to in TABLE[state][role].items():
        cells.append(f"`{tag(kind)}`" + (f" → {to.name.lower()}" if to is not state else ""))
    return ", ".join(cells) or "nothing"


def test_the_table_of_states_is_that_of_the_program() -> None:
    rows = table(STREAM, "state | the client may send | the hub may send")
    found = [[cell.strip("`") for cell in row] for row in rows]
    expected = [[state.name.lower(), moves(state, Role.CLIENT), moves(state, Role.HUB)] for state in State]
    assert found == [[cell.strip("`") for cell in row] for row in expected]


def test_close_codes_limits_and_times() -> None:
    codes = {int(code) for row in table(STREAM, "close code | means") for code in re.findall(r"\d{4}", row[0])}
    named = {CLOSE_NORMAL, CLOSE_GOING_AWAY, CLOSE_PROTOCOL, CLOSE_POLICY, CLOSE_INTERNAL, CLOSE_TRY_LATER}
    assert codes == named | {1009}
    limits = dict(table(STREAM, "what | limit"))
    assert (MAX_FRAME_BYTES, limits["a frame that the hub takes"]) == (32 << 20, "32 MiB")
    assert MAX_ANSWER_BYTES == 512 << 20 and "more than 512 MiB" in limits["a frame that it sends"]
    assert MAX_MESSAGES == MAX_DOCUMENTS == 1000
    assert limits["messages, or documents of a manifest, in one `submit`"] == "1,000"
    assert (MAX_ACKS, limits["entries, and refusals, in one `ack`"]) == (10_000, "10,000 each")
    assert Config().max_message_bytes == 1 << 20 and limits["a message"].startswith(
        "1 MiB (`--max-message-bytes`)"
    )
    assert Config().request_seconds == 30 and limits["time from the handshake to `hello`"].startswith("30 s")
    assert INLINE_BYTES == 64 << 10 and "more than 64 KiB comes without its bytes" in STREAM
    assert door.HEARTBEAT_SECONDS == 30 and "nothing has come for 15 to 30 seconds" in STREAM
    assert door.CREDIT_MESSAGES >= MAX_MESSAGES, "a manifest always fits"
    assert f"the subprotocol `{SUBPROTOCOL}`" in STREAM
    assert (transport.FIRST_PAUSE, transport.LONGEST_PAUSE) == (0.1, 10)
    assert "a\ntenth of a second to ten" in STREAM


async def test_the_minimal_client_sends_and_receives(reader: Reader) -> None:
    (program,) = blocks(STREAM, "python")
    assert len(program.split("async def main")[1].strip().splitlines()) <= 42
    (reader.folder / "client.py").write_text(program.replace(ADDRESS, reader.node.url))
    for n in (1, 2, 3):
        paper = {"id": f"moi-hop-{n}", "from": PROVINCE, "to": [VAN_YEN], "subject": "Giấy mời họp"}
        (reader.folder / f"{n}.json").write_bytes(orjson.dumps(paper))
        await reader.types(f"lienthong sign {n}.json --key tinh.pem")

    async def run(*arguments: str) -> str:
        return await reader.types(f"python3 client.py {' '.join(arguments)}")

    assert await run("tinh.token", "1.jws", "2.jws") == "accepted\naccepted\n"
    mail = await run("van-yen.token")
    assert sorted(mail.splitlines()) == ["moi-hop-1 from 000.00.00.H63", "moi-hop-2 from 000.00.00.H63"]
    answers = await run("tinh.token", "1.jws", "3.jws")  # in any order
    assert sorted(answers.splitlines()) == ["accepted", "duplicate"]
    assert await run("van-yen.token") == "moi-hop-3 from 000.00.00.H63\n"


# -- manifests --------------------------------------------------------------------------------------------


def example() -> tuple[list[bytes], bytes, bytes]:
    """The page's documents, manifest, and entry of the second document."""
    (documents,), (manifest,), (entry,) = (blocks(MANIFESTS, name) for name in ("text", "manifest", "entry"))
    return (
        [line.encode() for line in documents.strip().split("\n")],
        manifest.strip().encode(),
        entry.strip().encode(),
    )


KEY = ec.derive_private_key(int.from_bytes(decode64(D), "big"), ec.SECP256R1())


def test_the_manifest_is_that_of_its_documents_and_key() -> None:
    documents, body, entry = example()
    assert seal_manifest(documents, Signer(KEY)).to_body() == body
    jws, *lines = body.split(b"\n")
    opened = open_manifest(jws, lines)
    assert opened.entries()[1] == entry
    header, payload = re.findall(r"^    (?:header|payload)  (.*)$", MANIFESTS, re.MULTILINE)
    assert orjson.loads(header) == opened.jws.header
    assert orjson.loads(payload) == orjson.loads(opened.jws.payload)


def test_the_values_of_the_worked_example_by_the_second_verifier() -> None:
    documents, _, entry = example()
    assert prove_entry(entry.decode(), [to_jwk(KEY.public_key())]) == documents[1] == open_entry(entry).payload
    leaves = [leaf(document) for document in documents]
    above = tree_hash(leaves[:2])
    values = [row[2] for row in table(MANIFESTS, "step | | value (hex)")]
    assert values == [value.hex() for value in (leaves[1], leaves[0], above, leaves[2], tree_hash(leaves))]
    steps = entry.decode().split("~")[2].split(".")
    assert [decode64(step) for step in steps] == [leaves[0], leaves[2]]


@pytest.mark.parametrize("place", [None, 0, 1, 2])
async def test_the_program_proves_the_document_and_nothing_else(place: int | None, tmp_path: Path) -> None:
    (program,) = blocks(MANIFESTS, "python")
    documents, body, entry = example()
    parts = entry.decode().split("~")
    if place is not None:
        parts[place + 1] = ("0", parts[2].split(".")[0], body.decode().split("\n")[3])[place]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "~".join(parts), orjson.dumps(to_jwk(KEY.public_key())).decode()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    written, complaint = await process.communicate()
    if place is None:
        assert (process.returncode, written.decode().strip()) == (0, documents[1].decode()), complaint.decode()
    else:
        assert process.returncode != 0 and written == b"" and b"AssertionError" in complaint
