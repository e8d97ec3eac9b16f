"""The last step of a submission: commit what is to be relayed, seal what is refused, and answer for each.

What was submitted before is answered with the receipt that was given then. A refusal carries a receipt too: the
event that proves it is sealed in the same batch as what was accepted with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.evidence.history import History
from hub.pdf.policy import PdfSignatures
from hub.relay.batch import Rejection, Submission, Ticket, Work
from hub.relay.commit import Committer
from hub.relay.opening import Sender
from hub.relay.recall import Recalls
from hub.store.pool import UNAVAILABLE
from protocol.problems import Problem

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that the hub has. `receipt` is JSON; `duplicate`: it had been accepted before."""

    id: UUID
    receipt: bytes
    unreachable: list[dict[str, str]]
    duplicate: bool = False


class Postponed(Problem):
    """What says nothing of a message, only that it was not judged: answered, and not sealed as a refusal."""


class Answers:
    """Gives every submission its end: on disk and with a receipt, or refused."""

    def __init__(
        self, committer: Committer, history: History, recalls: Recalls, pdf_signatures: PdfSignatures
    ) -> None:
        self._committer = committer
        self._history = history
        self._recalls = recalls
        self._pdf_signatures = pdf_signatures

    async def settle(
        self,
        sender: Sender,
        digest: Callable[[int], bytes],
        outcomes: list[Accepted | Problem | Submission],
        ticket: Ticket,
    ) -> list[Accepted | Problem]:
        """Commit submissions, seal refusals, and answer in order.

        `ticket` is for as many as there are outcomes; `digest` gives the SHA-256 of the bytes behind each.
        """
        work: list[Work] = []
        twins: list[Work] = []
        keys: set[tuple[int, str]] = set()
        rejections: dict[int, Rejection] = {}
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Postponed):
                ticket.settle()
            elif isinstance(outcome, Problem):
                rejections[index] = self._rejection(sender, digest(index), outcome, ticket)
                work.append(rejections[index])
            elif isinstance(outcome, Submission):
                (twins if outcome.key in keys else work).append(outcome)
                keys.add(outcome.key)
        if twins:  # of the same id in one request the first counts: the others follow when it is settled
            later = Ticket(len(twins))
            for twin in twins:
                twin.ticket = later
                ticket.settle()
        self._committer.put(work)
        await ticket.done
        if twins:
            self._committer.put(twins)
            await later.done
        await self._by_other_ids(outcomes)
        if any(isinstance(item, Submission) and item.check_pdfs and item.receipt for item in work):
            self._pdf_signatures.queued()
        conflicts = {
            index: outcome.problem
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, Submission) and outcome.problem is not None
            if outcome.problem.code == "id-conflict"
        }
        if conflicts:
            again = Ticket(len(conflicts))
            for index, problem in conflicts.items():
                rejections[index] = self._rejection(sender, digest(index), problem, again)
            self._committer.put(rejections[index] for index in conflicts)
            await again.done
        ended: list[Accepted | Problem] = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Submission):
                if outcome.references and outcome.problem is None:
                    await self._recall(outcome)
                if outcome.problem is not None:
                    ended.append(self._with_receipt(outcome.problem, rejections.get(index)))
                elif outcome.duplicate_of is not None:
                    ended.append(await self._first(outcome.duplicate_of))
                else:
                    assert outcome.receipt is not None
                    ended.append(Accepted(outcome.id, outcome.receipt, outcome.route.unreachable_members))
            elif isinstance(outcome, Problem):
                ended.append(self._with_receipt(outcome, rejections.get(index)))
            else:
                ended.append(outcome)
        return ended

    async def _by_other_ids(self, outcomes: list[Accepted | Problem | Submission]) -> None:
        """Commit under their other ids what met the same id of another sender."""
        met = [
            outcome
            for outcome in outcomes
            if isinstance(outcome, Submission) and outcome.other_id and outcome.problem is not None
            if outcome.problem.code == "id-conflict"
        ]
        if not met:
            return
        again = Ticket(len(met))
        for outcome in met:
            # Under the name that its parties have for it it is found all the same (`hub/store/threads.sql`).
            outcome.document_id = outcome.sender_id
            outcome.sender_id, outcome.other_id = outcome.other_id, ""
            outcome.ticket, outcome.problem = again, None
        self._committer.put(met)
        await again.done

    async def _recall(self, outcome: Submission) -> None:
        """Carry out a recall. It is on disk: if this fails, it is its recipients who answer it."""
        try:
            await self._recalls.carry_out(outcome, outcome.duplicate_of or outcome.id)
        except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError, Problem) as error:
            log.error("a recall was not carried out; its recipients have it", error=str(error))

    @staticmethod
    def _rejection(sender: Sender, digest: bytes, problem: Problem, ticket: Ticket) -> Rejection:
        reason = problem.detail or problem.kind.title
        return Rejection(ticket, sender.endpoint, sender.name, digest, problem.code, reason[:1000])

    @staticmethod
    def _with_receipt(problem: Problem, rejection: Rejection | None) -> Problem:
        if rejection is not None and rejection.receipt is not None:
            problem.extra["receipt"] = orjson.Fragment(rejection.receipt)
        return problem

    async def _first(self, message: UUID) -> Accepted | Problem:
        """The answer that was given when the message was first submitted."""
        try:
            row = await self._history.message(message)
            if row is None:
                return Problem(
                    "id-conflict", "a message with this id was accepted before and has since left the hub"
                )
            receipt = await self._history.accepted_receipt(row)
        except (*UNAVAILABLE, TimeoutError):
            return Problem("store-unavailable", "nothing is lost: send the same message again", retry_after=2)
        except Problem as problem:
            return problem
        unreachable = orjson.loads(receipt.event).get("unreachable", [])
        return Accepted(message, receipt.to_json(), unreachable, duplicate=True)
