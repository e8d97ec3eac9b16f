"""What an operator must know of certificates before senders feel it: ends that draw near, and revocation.

Warned of 60, 30 and 7 days ahead, and at the end: once each in the log, at all times in the metrics (numbers, not
names: a name for each certificate would be too many time series) and by name in `/v1/status` for operators.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import asyncpg
import structlog

from hub.observe import metrics
from hub.store import sql

log = structlog.get_logger()
SQL = sql.load("trust")

WATCH_SECONDS = 60.0
THRESHOLDS = (60, 30, 7, 0)
"""Days before the end."""


class Watch:
    """Watches for one process; one at a time does (hub/chores.py)."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def turn(self) -> None:
        """Count, and warn of what has not been warned of. Raises what the database raises."""
        rows = await self._pool.fetch(SQL.in_use)
        now = datetime.now(UTC)
        left = {row["sha256"]: (row["not_after"] - now).total_seconds() / 86_400 for row in rows}
        for days in THRESHOLDS:
            metrics.EXPIRING.labels(str(days)).set(sum(one <= days for one in left.values()))
        for row in rows:
            passed = [days for days in THRESHOLDS if left[row["sha256"]] <= days]
            if passed:
                await self._warn(row, min(passed))
        (counts,) = await self._pool.fetch(SQL.count_statuses)
        for status, count in counts.items():
            metrics.REVOCATION.labels(status).set(count)

    async def _warn(self, row: asyncpg.Record, days: int) -> None:
        if await self._pool.fetchval(SQL.put_warning, row["sha256"], days) is None:
            return
        log.warning(
            "a certificate has expired" if days == 0 else "a certificate expires soon",
            within_days=days,
            not_after=row["not_after"].isoformat(),
            what=row["kind"],
            of=row["owner"],
            subject=row["subject"],
            certificate=row["sha256"].hex(),
        )
