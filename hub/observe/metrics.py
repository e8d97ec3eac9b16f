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
HANDOVERS_FORGOTTEN = Counter(
    "lienthong_handovers_forgotten_total",
    "Hand-overs that were not noted because too many waited to be sealed",
)
AXIS_CALLS = Counter("lienthong_axis_calls_total", "Calls of the axis's interface", ["call", "code"])
EXPIRING = Gauge(
    "lienthong_certificates_expiring",
    "Certificates in use that end within so many days, anchors too",
    ["days"],
    multiprocess_mode="mostrecent",
)
REVOCATION = Gauge(
    "lienthong_certificates",
    "Certificates of signers and of authorities between, by what is known of their revocation",
    ["status"],
    multiprocess_mode="mostrecent",
)
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
SIGN_SECONDS = Histogram(
    "lienthong_key_duration_seconds",
    "How long a signature of a key in a PKCS#11 token was waited for",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 5),
)
SIGN_FAILURES = Counter("lienthong_key_failures_total", "Batches that could not be signed")
PDF_CHECKED = Counter("lienthong_pdf_checked_total", "PDFs whose signatures were checked, by result", ["result"])
PDF_SECONDS = Histogram(
    "lienthong_pdf_check_duration_seconds",
    "How long checking a PDF's signatures took",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
PDF_QUEUE = Gauge(
    "lienthong_pdf_queue", "Messages whose PDFs are still to be checked", multiprocess_mode="mostrecent"
)
PDF_OLDEST = Gauge(
    "lienthong_pdf_queue_oldest_seconds",
    "How long the oldest of those has waited",
    multiprocess_mode="mostrecent",
)
TIMESTAMPS = Counter("lienthong_timestamps_total", "Time-stamps on checkpoints that were kept", ["authority"])
TIMESTAMP_FAILURES = Counter(
    "lienthong_timestamp_failures_total", "Requests to authorities that gave no time-stamp to keep", ["authority"]
)
TIMESTAMP_SUCCESS = Gauge(
    "lienthong_timestamp_last_success_seconds",
    "When an authority last stamped a checkpoint (UNIX time)",
    ["authority"],
    multiprocess_mode="mostrecent",
)
QUEUE_BYTES = Gauge(
    "lienthong_queue_bytes", "Bytes of messages on their way to a commit", multiprocess_mode="livesum"
)
READERS = Gauge("lienthong_waiting_readers", "Readers waiting for mail", multiprocess_mode="livesum")
STREAMS = Gauge("lienthong_streams", "Streams that receive", multiprocess_mode="livesum")
LOOP_LAG = Gauge(
    "lienthong_event_loop_lag_seconds", "Longest lateness of the event loop lately", multiprocess_mode="livemax"
)
LOG_ENTRIES = Gauge("lienthong_log_entries", "Events in the transparency log", multiprocess_mode="livemax")
LOG_LAG = Gauge(
    "lienthong_log_lag_seconds",
    "How long the oldest event that is not in the transparency log has waited",
    multiprocess_mode="mostrecent",
)
LOG_BROKEN = Gauge(
    "lienthong_log_broken",
    "1 when the stored log is not the one that was signed, and nothing more is logged",
    multiprocess_mode="livemax",
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
WITNESS_LAG = Gauge(
    "lienthong_witness_lag_seconds",
    "For how long there has been a checkpoint of the log that a witness has not signed",
    ["witness"],
    multiprocess_mode="mostrecent",
)
WITNESS_REFUSES = Gauge(
    "lienthong_witness_refuses",
    "1 while a witness says that the log is not the one that it signed before",
    ["witness"],
    multiprocess_mode="mostrecent",
)


def render() -> bytes:
    """All processes' metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest()
