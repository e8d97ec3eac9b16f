"""The load tester's books: who gets which document, and what counts as lost, repeated or astray."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import orjson
import pytest

from benchmarks.locust import prepare
from benchmarks.locust.account import Account, Counts
from benchmarks.locust.load import Load, LoadError, Manifest, Receiver, Sender
from protocol.evidence import Sealer, Tree, leaf_hash, receipt
from protocol.message import open_jws
from protocol.signature import Signer, generate, private_pem

HUB = Signer(generate("EdDSA"), typ="lienthong-seal+1")
KEYS = {HUB.kid: HUB.key.public_key()}


def manifest(senders: int, receivers: int, rounds: int = 10, fan_out: int = 1, cells: int = 1) -> Manifest:
    return Manifest(
        "thu",
        "http://127.0.0.1:1",
        tuple(Sender(f"gửi {n}", f"000.00.{n:02}.H63", f"g{n}") for n in range(1, senders + 1)),
        tuple(Receiver(f"nhận {n}", (f"000.{n:02}.99.H63",), f"n{n}") for n in range(1, receivers + 1)),
        rounds,
        fan_out,
        cells,
    )


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Two senders with three documents each, for two mailboxes."""
    key = private_pem(generate("ES256")).decode()
    made = prepare.Endpoints(
        "http://127.0.0.1:1",
        tuple(prepare.SenderFile(f"gửi {n}", f"000.00.0{n}.H63", token="g", key=key) for n in (1, 2)),
        tuple(prepare.ReceiverFile(f"nhận {n}", (f"000.0{n}.99.H63",), token="n") for n in (1, 2)),
    )
    prepare.sign(made, tmp_path, tmp_path / "load", 5)
    return Load(tmp_path / "load")


def answer(load: Load, number: int, state: str = "accepted", **changes: object) -> bytes:
    """What a hub answers to document `number`."""
    members = {
        "event": "accepted",
        "id": load.manifest.sender_id(number),
        "sha256": hashlib.sha256(load.document(number)).hexdigest(),
    }
    event = orjson.dumps(members | changes).decode()
    tree = Tree([leaf_hash(event.encode())])
    proof = receipt(event, 0, tree, Sealer("trục", HUB).seal(tree, "b", datetime(2026, 3, 5, tzinfo=UTC)))
    return msgspec.json.encode({"id": "01", "state": state, "receipt": proof})


def test_every_cell_addresses_its_own_mailboxes_evenly() -> None:
    shared = manifest(7, 6, rounds=60, fan_out=2, cells=3)
    got: dict[int, int] = dict.fromkeys(range(6), 0)
    for number in range(shared.documents):
        recipients = shared.recipients(number)
        assert len(set(recipients)) == 2
        assert {place % 3 for place in recipients} == {shared.cell_of(number)}
        for place in recipients:
            got[place] += 1
    # Cell 0 has three senders, the others two.
    assert got == {0: 180, 3: 180, 1: 120, 4: 120, 2: 120, 5: 120}


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ((0, 1), "a sender and a receiver"),
        ((1, 0), "a sender and a receiver"),
        ((3, 1, 1, 1, 2), "at least as many"),
        ((2, 5, 1, 3, 2), "cannot go to 3 mailboxes"),
    ],
)
def test_numbers_that_do_not_go_together(numbers: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(LoadError, match=complaint):
        manifest(*numbers).check()


def test_a_load_is_read_as_it_was_signed(load: Load) -> None:
    assert load.manifest.documents == 6
    for number in range(6):
        _, document = open_jws(load.document(number))
        assert document.id == load.manifest.sender_id(number)
        assert load.number_of(document.id) == number
        assert document.sender == load.manifest.senders[number % 2].agency
        (place,) = load.manifest.recipients(number)
        assert document.to == load.manifest.receivers[place].agencies
    assert load.number_of("khác-000000001") == load.number_of(f"{load.manifest.run}-000000006") == -1
    with pytest.raises(LoadError, match="holds no load"):
        Load(load.folder / "không có")


def deliver(account: Account, number: int) -> None:
    mailbox = account.mailboxes[account.load.manifest.recipients(number)[0]]
    assert account.delivered(mailbox, account.load.manifest.sender_id(number), account.load.document(number)) >= 0


def test_a_document_all_the_way(load: Load) -> None:
    account = Account(load, 0, sample=1)
    for number in range(6):
        account.sent(number, 1.0)
        assert account.receipted(number, answer(load, number)) is None
        deliver(account, number)
    assert account.undelivered == 6 and account.under_way == 0
    for mailbox in account.mailboxes.values():
        mine = [n for n in range(6) if load.manifest.recipients(n) == [mailbox.place]]
        assert account.acknowledged(mailbox, mine, len(mine)) == mine
    account.verify(KEYS)
    counts = account.report()
    assert counts.conserved and counts.verified == 6 and not account.undelivered


def test_a_receipt_by_another_key_is_found_out(load: Load) -> None:
    account = Account(load, 0, sample=1)
    account.sent(0, 1.0)
    assert account.receipted(0, answer(load, 0)) is None
    account.verify({})
    counts = account.report()
    assert not counts.conserved and counts.verified == 0
    assert "proves nothing" in next(iter(counts.faults))


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (lambda load: answer(load, 1), "something else than what was sent"),
        (lambda load: answer(load, 0, event="rejected"), "something else than what was sent"),
        (lambda load: answer(load, 0, sha256="00" * 32), "something else than what was sent"),
        (lambda load: answer(load, 0, state="duplicate"), "accepted before this run"),
        (lambda load: answer(load, 0).replace(b'"index":0', b'"index":1'), "cannot be of its batch"),
        (lambda load: b'{"id":"01","state":"accepted"}', "without a readable receipt"),
        (lambda load: b"<html>", "without a readable receipt"),
    ],
)
def test_answers_that_prove_nothing(load: Load, made: object, complaint: str) -> None:
    account = Account(load, 0, sample=1)
    account.sent(0, 1.0)
    assert complaint in str(account.receipted(0, made(load)))  # type: ignore[operator]
    counts = account.report()
    assert (counts.receipted, account.under_way, counts.conserved) == (0, 0, False)


def test_what_was_sent_again_may_have_been_accepted_before(load: Load) -> None:
    account = Account(load, 0, sample=1)
    account.sent(0, 1.0)
    assert list(account.unanswered()) == [0]
    account.sent_again(0)
    assert account.receipted(0, answer(load, 0, state="duplicate")) is None
    assert account.receipted(0, answer(load, 0, state="duplicate")) is None
    assert account.counts.receipted == 1 and list(account.unanswered()) == []


def test_deliveries_that_should_not_be(load: Load) -> None:
    account = Account(load, 0, sample=1)
    name, document = load.manifest.sender_id, load.document
    account.sent(0, 1.0)
    account.receipted(0, answer(load, 0))
    (place,) = load.manifest.recipients(0)
    mailbox, other = account.mailboxes[place], account.mailboxes[1 - place]
    account.delivered(other, name(0), document(0))
    account.delivered(mailbox, name(0), document(0) + b"x")
    account.delivered(mailbox, name(2), document(2))
    assert account.counts.strays == 3 and account.counts.delivered == 0
    assert account.delivered(mailbox, "của-ai-khác", b"") == -1 and mailbox.others == 1
    deliver(account, 0)
    deliver(account, 0)
    assert (account.counts.delivered, account.counts.repeated, account.counts.strays) == (1, 1, 3)
    account.acknowledged(mailbox, [0], 1)
    deliver(account, 0)
    assert account.counts.strays == 4


def test_an_acknowledgement_without_an_answer(load: Load) -> None:
    account = Account(load, 0, sample=1)
    account.sent(0, 1.0)
    account.receipted(0, answer(load, 0))
    deliver(account, 0)
    (place,) = load.manifest.recipients(0)
    mailbox = account.mailboxes[place]
    mailbox.doubtful.add(0)
    assert account.undelivered == 1
    account.emptied(mailbox)
    account.emptied(mailbox)
    assert account.undelivered == 0 and account.counts.acknowledged == 1


def test_refusals_are_not_lost_silently(load: Load) -> None:
    account = Account(load, 0, sample=1)
    account.sent(0, 1.0)
    account.refused(0, "403 unknown-key")
    counts = account.report()
    assert counts.faults == {"refused: 403 unknown-key": 1} and not counts.conserved and account.under_way == 0


def test_reports_of_several_processes_are_added() -> None:
    one = Counts(sent=2, receipted=2, due=2, cpu_share=0.5, late_p99_ms=3, faults={"a": 1})
    two = Counts(sent=3, receipted=1, due=1, cpu_share=0.25, late_p99_ms=7, faults={"a": 2, "b": 1})
    both = one + two
    assert (both.sent, both.receipted, both.due, both.cpu_share, both.late_p99_ms) == (5, 3, 3, 0.5, 7)
    assert both.faults == {"a": 3, "b": 1}
