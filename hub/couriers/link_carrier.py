"""What a link's pusher needs of the interface that is spoken there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from hub.couriers.axis import Delivery
from hub.relay.mail import Mail


@dataclass(slots=True)
class Errand:
    """A message that is to go to the peer. `mail` is its entry, or None when an operator sends it once more."""

    message: UUID
    sender: str
    mail: Mail | None = None
    delivery: Delivery | None = None
    """As it was read from the store; made by the carrier where it needs it."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The peer has a message, which it calls `peer_id`; None: it was recalled, so there is nothing to carry."""

    peer_id: str | None
    receipt: str | None = None
    """The peer's, as JSON, where it gives one."""


class Carrier(Protocol):
    """Carries messages to the peer. All of it may be done twice with the same message."""

    at_most: int
    """How many messages of one agency are carried together."""

    async def prepare(self, errand: Errand) -> None:
        """Do beforehand what can be done while others are on their way. Raises what `carry` gives."""

    async def carry(self, errands: Sequence[Errand]) -> list[Carried | Exception]:
        """Carry messages, in their order; what became of each.

        `PeerError`, OSError or a retryable `Problem`: to be tried again. Any other `Problem`, `Refusal` or
        `PeerRefusedError`: never.
        """

    async def tell(self, mail: Mail) -> None:
        """Say how a document that came from the peer ended here, by the hub's own notice. Raises PeerError."""

    def drop(self, message: UUID) -> None:
        """The peer has the message, or never will: nothing of it need be kept."""
