"""A sending process of the django-pyas2 station: what its ``sendas2message`` does, on several threads.

Told what to do by the same lines as child.py. A document is confirmed, and acknowledged, when the station has
stored the partner's MDN, checked its signature and found it positive.
"""

from __future__ import annotations

import json
import sys
import threading
import traceback
from typing import Any

from benchmarks.peers import pyas2_site
from benchmarks.peers.share import Book, Share


def say(**values: Any) -> None:
    """Answer with a line."""
    print(json.dumps(values), flush=True)


def main() -> None:
    """Obey until the input ends."""
    order = json.loads(sys.argv[1])
    settings = order["settings"]
    share = Share(order["capacity"], order["length"], order["descriptor"])
    book = Book(share, order["seat"], order["all_senders"])
    pyas2_site.prepare()
    from pyas2.models import Organization, Partner

    # With their keys read once; a run of `sendas2message` reads them each time.
    partners = {partner.as2_name: partner.as2partner for partner in Partner.objects.all()}
    organizations = {organization.as2_name: organization.as2org for organization in Organization.objects.all()}
    taking = threading.Lock()
    errors: list[str] = []

    def work(senders: list[int]) -> None:
        try:
            left = list(senders)
            while left and not errors:
                sender = left.pop(0)
                with taking:
                    places = book.take(sender)
                if not places:
                    continue
                left.append(sender)
                (place,) = places
                send(organizations[f"S{sender}"], partners[f"R{book.receiver(place)}"], book.document(place))
                with taking:
                    book.confirmed(places)
                    book.acknowledge(places)
        except Exception as error:
            errors.append("".join(traceback.format_exception(error))[-3000:])

    def go() -> None:
        count = min(settings["window"], len(order["senders"]))
        threads = [threading.Thread(target=work, args=(order["senders"][n::count],)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        say(**({"error": errors[0]} if errors else {"did": "go"}))

    say(did="open")
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "prepare":
            book.prepare(command["first"], command["count"])
            say(did="prepare")
        else:
            book.go(command["until"])
            threading.Thread(target=go, daemon=True).start()


def send(organization: Any, partner: Any, payload: bytes) -> None:
    """Sign, store, send, check the MDN and store it. Raises RuntimeError unless it is signed and positive."""
    from pyas2.models import Message
    from pyas2lib import Message as As2Message

    as2 = As2Message(sender=organization, receiver=partner)
    as2.build(
        payload,
        filename="document.json",
        subject="a document",
        content_type="application/octet-stream",
        disposition_notification_to="no-reply@pyas2.com",
    )
    message, _ = Message.objects.create_from_as2message(
        as2message=as2, payload=payload, filename="document.json", direction="OUT", status="P"
    )
    message.send_message(as2.headers, as2.content)
    if message.status != "S" or not message.mdn.signed:
        raise RuntimeError(f"not acknowledged: {message.status} {message.detailed_status}")


if __name__ == "__main__":
    main()
