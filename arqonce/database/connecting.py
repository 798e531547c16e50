"""Connects to the server that may be written to: of one host, whatever it is by now, or of several the right one.

asyncpg has such a choice, too, but it waits for one host after the other, all within one limit: a machine that is gone
without a word would keep it from the next for ever. And it does not say why a server was refused.

The servers are asked in turn, 0.25 s apart, and the first that fits is taken (as addresses are by "Happy Eyeballs",
RFC 8305): a host that is silent delays a connection by that, and only until another one was found.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg

from arqonce.database.hosts import Host

STANDBY = "it is a standby"
READ_ONLY = "default_transaction_read_only is on for this user, database or server"

TARGETS = ("read-write", "any", "primary", "standby", "prefer-standby", "read-only")
"""libpq's ``target_session_attrs``."""

_STAGGER = timedelta(milliseconds=250)
"""How long one host may be silent before the next is asked as well."""


class UnwritableServerError(asyncpg.ReadOnlySQLTransactionError):  # type: ignore[misc] # asyncpg ships no types
    """We are connected to no server that can be written to. The text says why, and holds no data."""


def why_unwritable(connection: Any) -> str | None:  # noqa: ANN401 - asyncpg ships no types
    """Say why this connection cannot write, as the server has reported by itself; ``None`` if it can. No round trip.

    PostgreSQL 14 and later report each change with their next answer. PgBouncer reports nothing.
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
    """Connects as asyncpg does, to one of ``hosts`` that is a ``target``; begins with the one it has found last."""

    def __init__(self, hosts: Sequence[Host], target: str) -> None:
        """Connect to nothing yet. Without hosts it is left to asyncpg where the server is."""
        self._hosts: tuple[Host | None, ...] = tuple(hosts) or (None,)
        self._target = target
        self._last = self._hosts[0]

    async def __call__(self, **options: Any) -> Any:  # noqa: ANN401 - asyncpg's arguments and its connection
        """Connect, each host within ``timeout``.

        Raises:
            UnwritableServerError: those that answer cannot be written to.
            TargetServerAttributeNotMatched: those that answer can, and only a standby was wanted.
            Exception: whatever asyncpg raises where none answers.
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
    """Close a connection that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


async def _connect_to(host: Host | None, target: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    where = {} if host is None else {"host": host.name, "port": host.port}
    connection = await asyncpg.connect(**options, **where, target_session_attrs="any")
    trouble = why_unwritable(connection)
    if _fits(trouble, target):
        return connection
    connection.terminate()
    if target in _WRITABLE:
        raise UnwritableServerError(trouble)
    raise asyncpg.TargetServerAttributeNotMatched(f"target_session_attrs={target}: the server is no such one")


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
    """Say in a few words, without data, why a host will not do."""
    if isinstance(error, UnwritableServerError):
        return str(error)
    state = getattr(error, "sqlstate", None)
    return "no answer" if state is None else f"it refuses us (SQLSTATE {state})"


def _of_all(failures: dict[Host | None, Exception]) -> Exception:
    """Return what to raise if no host will do: what an answer said is worth more than that there was none."""
    if any(isinstance(error, UnwritableServerError) for error in failures.values()):
        told = [f"{host}: {_told(failures[host])}" for host in sorted(failures, key=str)]
        return UnwritableServerError("; ".join(told))
    errors = list(failures.values())
    return next((error for error in errors if not isinstance(error, OSError)), errors[-1])
