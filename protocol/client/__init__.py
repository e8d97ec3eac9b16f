"""The asyncio client for agency systems: sends signed documents, receives them, keeps the receipts.

    async with HubClient(url, token, key=key) as hub:
        sent = await hub.send(Document(id=new_id(), sender="000.00.00.H63", to=("000.00.31.H63",)))
        async for entry in hub.mail(wait=30):
            print(entry.document.subject)
            await hub.acknowledge(entry)

`HubClient.stream` does both on one connection (docs/stream.md).

Everything here may be repeated without harm: a message is known by its id, an attachment by its digest,
an acknowledgement by its sequence. So the client repeats what failed for a passing reason, with growing
and jittered pauses, for `retry_seconds`; what the hub refuses for good is raised at once as `Problem`.
"""

from protocol.client.hub import HubClient
from protocol.client.model import ClientError, Entry, Sent
from protocol.client.stream import Stream
from protocol.message import Attachment, Document, new_id
from protocol.problems import Problem

__all__ = [
    "Attachment",
    "ClientError",
    "Document",
    "Entry",
    "HubClient",
    "Problem",
    "Sent",
    "Stream",
    "new_id",
]
