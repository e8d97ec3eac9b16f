"""What a hub says for an agency of its own that took no document: the state that its sender beyond a link expects.

On the axis a transfer has ended when the hub took it in. That a recipient's system then refused it, or that it was
taken back before anybody read it, reaches the sender as a state, since there is no other way.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import asyncpg

from hub.couriers.axis_given import _organ
from hub.directory.picture import Picture
from protocol.edxml.convert import MARK
from protocol.edxml.model import Message, MessageHeader, Organ, ResponseFor, StaffInfo
from protocol.edxml.values import written_time
from protocol.edxml.writer import NOT_XML, write_message
from protocol.evidence import EventKind
from protocol.status import State

_STATES = {
    EventKind.REFUSED: State.REFUSED,
    EventKind.EXPIRED: State.REFUSED,
    EventKind.RECALLED: State.CHANGE_AGREED,
}


def status_of_notice(picture: Picture, event: dict[str, Any], agency: str, original: asyncpg.Record) -> bytes:
    """The state of the document `original` at `agency`, as edXML, from the hub's own notice of `event`."""
    organ = _organ(picture, agency) or Organ()
    header = MessageHeader(
        sender=Organ(
            organ_id=agency,
            organ_name=organ.organ_name,
            organization_in_charge=organ.organization_in_charge,
            email=organ.email,
        ),
        response_for=(ResponseFor(organ_id=original["sender"], document_id=original["document_id"]),),
        staff_info=StaffInfo(department=MARK, staff=f"{event['event']} {event['message']}"),
        status_code=_STATES[EventKind(event["event"])],
        description=NOT_XML.sub("\ufffd", event.get("reason") or ""),
        timestamp=written_time(datetime.fromisoformat(event["at"])),
    )
    return b"".join(write_message(Message(header=header)))
