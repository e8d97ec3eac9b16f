"""The user that every locustfile here has beside agency systems: somebody who looks at the hub."""

from __future__ import annotations

from typing import Any

from locust import FastHttpUser, constant_throughput, tag, task

LOOK_SECONDS = 5.0


class Administrator(FastHttpUser):
    """Looks at the hub's status, as its operators do all day."""

    fixed_count = 1
    wait_time = constant_throughput(1 / LOOK_SECONDS)

    def __init__(self, environment: Any) -> None:
        self.insecure = bool(environment.parsed_options.insecure)
        super().__init__(environment)

    @tag("watch")
    @task
    def look(self) -> None:
        """The status page, and whether the hub is ready."""
        for path in ("/v1/status", "/healthz/ready"):
            self.client.get(path, headers={"Accept-Encoding": "identity"}, name=path)
