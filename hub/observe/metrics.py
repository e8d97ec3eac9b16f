"""Prometheus metrics of all processes of a node, answered by any of them.

prometheus_client's multi-process mode keeps each process's values in files of a shared directory
(`PROMETHEUS_MULTIPROC_DIR`, set by the supervisor before a worker imports this). Counters are moved once
a batch or once a report, never once a message.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MESSAGES = Counter("lienthong_messages_total", "Messages by how their submission ended", ["outcome"])
DELIVERIES = Counter("lienthong_deliveries_total", "Deliveries by how they ended", ["outcome"])
REFUSED = Counter("lienthong_refused_total", "Requests not let in, by what they would have exceeded", ["reason"])
COMMITS = Counter("lienthong_commits_total", "Batches committed", ["kind"])
AXIS_CALLS = Counter("lienthong_axis_calls_total", "Calls of the axis's interface", ["call", "code"])
LINK_TRANSFERS = Counter(
    "lienthong_link_transfers_total", "Messages at a link by what became of them", ["link", "outcome"]
)
LINK_SUCCESS = Gauge(
    "lienthong_link_last_success_seconds",
    "When a link last worked (UNIX time)",
    ["link"],
    multiprocess_mode="mostrecent",
)
COMMIT_SECONDS = Histogram(
    "lienthong_commit_duration_seconds",
    "From a batch being taken from the queue to its commit",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 20),
)
QUEUE_BYTES = Gauge(
    "lienthong_queue_bytes", "Bytes of messages on their way to a commit", multiprocess_mode="livesum"
)
READERS = Gauge("lienthong_waiting_readers", "Readers waiting for mail", multiprocess_mode="livesum")
STREAMS = Gauge("lienthong_streams", "Streams that receive", multiprocess_mode="livesum")
LOOP_LAG = Gauge(
    "lienthong_event_loop_lag_seconds", "Longest lateness of the event loop lately", multiprocess_mode="livemax"
)
DIRECTORY_REVISION = Gauge(
    "lienthong_directory_revision", "Revision of the directory in use", multiprocess_mode="livemin"
)
WAITING = Gauge(
    "lienthong_mailbox_waiting", "Deliveries not yet ended, by lane", ["lane"], multiprocess_mode="mostrecent"
)
OLDEST = Gauge(
    "lienthong_mailbox_oldest_seconds",
    "Age of the oldest delivery not yet ended, by lane",
    ["lane"],
    multiprocess_mode="mostrecent",
)


def render() -> bytes:
    """All processes' metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest()
