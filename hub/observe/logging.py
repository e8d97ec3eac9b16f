"""Logs: one line an event on standard error; JSON when nobody is looking."""

from __future__ import annotations

import logging
import sys

import structlog


def configure() -> None:
    """Set up logging for this process. Times are UTC."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # When PostgreSQL goes away, every pooled connection would log a traceback; the hub says it once.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
