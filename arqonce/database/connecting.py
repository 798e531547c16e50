"""Connects to a server that can be written to, of one or of several hosts.

asyncpg can choose among hosts, too. But it tries them one after the other within one timeout, so that a host that does
not answer keeps it from trying the next. And it does not say why it rejected a server.

Here the connection attempts start 0.25 s apart, and the first suitable server is used (as with "Happy Eyeballs",
RFC 8305). A silent host delays a connection by 0.25 s, and only until another server is found, which is tried first
from then on.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg

from arqonce.database.hosts import Host
from arqonce.database.joining import connect

STANDBY = "it is a standby"
READ_ONLY = "default_transaction_read_only is on for this user, database or server"

TARGETS = ("read-write", "any", "primary", "standby", "prefer-standby", "read-only")
"""libpq's ``target_session_attrs``."""

_STAGGER = timedelta(milliseconds=250)
"""How long to wait for one host before also trying the next."""


class UnwritableServerError(asyncpg.ReadOnlySQLTransactionError):  # type: ignore[misc] # asyncpg ships no types
    """None of the servers that answer can be written to. The text says why, and contains no data."""


def why_unwritable(connection: Any) -> str | None:  # noqa: ANN401 - asyncpg ships no types
    """Return why this connection cannot write, from what the server has reported; ``None`` if it can. No round trip.

    PostgreSQL 14 and later report each change with the next response. PgBouncer reports nothing.
    """
    if connection.is_closed():
        return None
    reported = connection.get_settings()
    if getattr(reported, "in_hot_standby", "off") == "on":
        return STANDBY
    if getattr(reported, "default_transaction_read_only", "off") == "on":
        return READ_ONLY
    return None


class Connector:
    """Connects with asyncpg to one of ``hosts`` that matches ``target``; tries the host used last first."""

    def __init__(self, hosts: Sequence[Host], target: str) -> None:
        """Open no connection yet. Without hosts, asyncpg determines the server."""
        self._hosts: tuple[Host | None, ...] = tuple(hosts) or (None,)
        self._target = target
        self._last = self._hosts[0]

    async def __call__(self, **options: Any) -> Any:  # noqa: ANN401 - asyncpg's arguments and its connection
        """Connect. The option ``timeout`` applies to each host.

        Raises:
            UnwritableServerError: the servers that answer cannot be written to.
            TargetServerAttributeNotMatched: the servers that answer can be written to, and a standby was required.
            Exception: what asyncpg raises if no server answers.
        """
        for name in ("host", "port", "target_session_attrs"):
            options.pop(name, None)
        if self._target != "prefer-standby":
            return await self._connect(self._target, options)
        try:
            return await self._connect("standby", options)
        except asyncpg.TargetServerAttributeNotMatched:
            return await self._connect("any", options)

    async def _connect(self, target: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - asyncpg ships no types
        if len(self._hosts) == 1:
            return await _connect_to(self._hosts[0], target, options)
        hosts = deque(sorted(self._hosts, key=lambda host: host != self._last))
        asked: dict[asyncio.Task[Any], Host | None] = {}
        failures: dict[Host | None, Exception] = {}
        try:
            while hosts or asked:
                if hosts:
                    host = hosts.popleft()
                    asked[asyncio.create_task(_connect_to(host, target, options), name=f"connect to {host}")] = host
                patience = _STAGGER.total_seconds() if hosts else None
                done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    host = asked.pop(task)
                    if (error := task.exception()) is None:
                        self._last = host
                        asked.update(dict.fromkeys(done - {task}))
                        return task.result()
                    failures[host] = error if isinstance(error, Exception) else ConnectionError(str(error))
        finally:
            for task in asked:
                task.add_done_callback(_drop)
                task.cancel()
        raise _of_all(failures)


def _drop(task: "asyncio.Task[Any]") -> None:
    """Close a connection that another one was preferred to."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


async def _connect_to(host: Host | None, target: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    where = {} if host is None else {"host": host.name, "port": host.port}
    connection = await connect(**options, **where, target_session_attrs="any")
    trouble = why_unwritable(connection)
    if _fits(trouble, target):
        return connection
    connection.terminate()
    if target in _WRITABLE:
        raise UnwritableServerError(trouble)
    raise asyncpg.TargetServerAttributeNotMatched(f"target_session_attrs={target}: the server does not match")


_WRITABLE = {"read-write", "primary"}


def _fits(trouble: str | None, target: str) -> bool:
    match target:
        case "read-write":
            return trouble is None
        case "primary":
            return trouble != STANDBY
        case "standby":
            return trouble == STANDBY
        case "read-only":
            return trouble is not None
        case _:
            return True


def _told(error: Exception) -> str:
    """Describe briefly, without data, why a host cannot be used."""
    if isinstance(error, UnwritableServerError):
        return str(error)
    state = getattr(error, "sqlstate", None)
    return "no answer" if state is None else f"it refuses us (SQLSTATE {state})"


def _of_all(failures: dict[Host | None, Exception]) -> Exception:
    """Return the error to raise if no host can be used; prefer a server's response to a missing one."""
    if any(isinstance(error, UnwritableServerError) for error in failures.values()):
        told = [f"{host}: {_told(failures[host])}" for host in sorted(failures, key=str)]
        return UnwritableServerError("; ".join(told))
    errors = list(failures.values())
    return next((error for error in errors if not isinstance(error, OSError)), errors[-1])
