"""Limits of idle transactions in PostgreSQL, and which of the server's own limits are shorter than a job.

Knows no job, only how long one may last.
"""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

IDLE_LIMIT = timedelta(seconds=35)
"""The ``idle_in_transaction_session_timeout`` of our connections.

Longer than the default deadline of a job, 30 s, so that the worker itself ends a late attempt. A transaction that may
last longer sets its own limit with its first statement (``allow_pauses``).
"""

_MARGIN = timedelta(seconds=5)
"""How much longer than a transaction may last the server's limit is."""

KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""With these the server detects after 25 s that a client's host has vanished, and releases its locks (PostgreSQL's
manual, "TCP Settings"). A job that is delivered again waits for these locks, one statement timeout in each attempt, and
must not use up its attempts before. The default is two hours. Without effect on Unix sockets."""

_MOST_MS = 2**31 - 1
"""Largest value of PostgreSQL's time limits."""

_OF_SERVER = text(
    "SELECT name, setting::bigint FROM pg_settings WHERE unit = 'ms' AND setting::bigint > 0"
    " AND name IN ('transaction_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')"
)


def idle_limit(lasts: timedelta) -> timedelta:
    """Return how long a transaction that may last so long may be idle."""
    return max(IDLE_LIMIT, min(lasts + _MARGIN, timedelta(milliseconds=_MOST_MS)))


def allow_pauses(lasts: timedelta) -> tuple[str, ...]:
    """Return the statements after BEGIN with which a transaction may be idle for as long as it may last; usually none.

    They travel with BEGIN, and cost no round trip.
    """
    if lasts <= IDLE_LIMIT - _MARGIN:
        return ()
    return (f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds(idle_limit(lasts))}",)


def milliseconds(duration: timedelta) -> str:
    """Format the duration for PostgreSQL's settings, in milliseconds."""
    return str(round(duration / timedelta(milliseconds=1)))


async def shorter_limits(session: AsyncSession, lasts: timedelta) -> dict[str, timedelta]:
    """Return the server's limits, by name, that end a transaction sooner than it may last. One round trip.

    Limits that we set ourselves are not among them, unless the server or a pooler has overridden them.
    """
    found = {name: timedelta(milliseconds=limit) for name, limit in await session.execute(_OF_SERVER)}
    least = {"idle_in_transaction_session_timeout": min(lasts, IDLE_LIMIT), "transaction_timeout": lasts}
    return {name: found[name] for name, needed in least.items() if name in found and found[name] < needed}
