"""How long PostgreSQL lets a transaction of ours be idle, and what of the server's own limits is shorter than a job.

Knows no job: only how long one may last.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncSession

IDLE_LIMIT = timedelta(seconds=35)
"""The server ends a transaction of ours that does nothing for so long (``idle_in_transaction_session_timeout``).

Longer than the deadline of a job that sets none, which is 30 s: we end a late attempt ourselves. A transaction that may
last longer sets a limit of its own with its first statement (``allow_pauses``).
"""

_MARGIN = timedelta(seconds=5)
"""The server's limit is so much longer than what the transaction may last."""

KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""After 25 s the server notices that a client's host has vanished, and frees its locks (PostgreSQL's manual, "TCP
Settings"). Its job, delivered again, waits for them, a statement timeout in each attempt: it must not run out of
attempts before. By default the system notices after two hours. Without effect on Unix sockets."""

VANISHED = timedelta(seconds=10 + 5 * 3)
"""In what time that is."""

_SET = "SELECT set_config('idle_in_transaction_session_timeout', '{}', true)"

_OF_SERVER = text(
    "SELECT name, setting::bigint FROM pg_settings WHERE unit = 'ms' AND setting::bigint > 0"
    " AND name IN ('transaction_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')"
)


def allow_pauses(session: AsyncSession, lasts: timedelta) -> None:
    """Let the session's transaction be idle as long as it lasts; one round trip with its first statement, or none."""
    if lasts <= IDLE_LIMIT - _MARGIN:
        return
    statement = _SET.format(milliseconds(lasts + _MARGIN))

    def set_limit(_session: Any, _transaction: Any, connection: Connection) -> None:  # noqa: ANN401 - SQLAlchemy's
        connection.exec_driver_sql(statement)

    event.listen(session.sync_session, "after_begin", set_limit)


def milliseconds(duration: timedelta) -> str:
    """Return the duration as PostgreSQL's settings take it."""
    return str(round(duration / timedelta(milliseconds=1)))


async def shorter_limits(session: AsyncSession, lasts: timedelta) -> dict[str, timedelta]:
    """Return the server's limits by name that end a transaction sooner than it may last. One round trip.

    Those that we set for ourselves are not among them, unless a server or a pooler has overruled us.
    """
    found = {name: timedelta(milliseconds=limit) for name, limit in await session.execute(_OF_SERVER)}
    least = {"idle_in_transaction_session_timeout": min(lasts, IDLE_LIMIT), "transaction_timeout": lasts}
    return {name: found[name] for name, needed in least.items() if name in found and found[name] < needed}
