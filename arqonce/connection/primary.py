"""Keeps connections on the primary: a connection to a server that has become a replica is closed and replaced.

A server may be demoted without closing its clients' connections. It then serves stale reads and refuses writes
(``READONLY``); only a new connection leads to the primary, by DNS, a proxy or the Sentinels. Connections therefore
check the server's role when they are opened, and periodically in the same round trip as a command. They are closed at
the first refused write. A refused command had no effect, so redis-py sends it again on a new connection.

The check uses ``HELLO``, which no ACL can refuse, and which also identifies a cluster and a Sentinel (Redis 6.2). Where
a proxy refuses ``HELLO``, only refused writes reveal a replica.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.connection import AbstractConnection as SyncAbstractConnection
from redis.exceptions import BusyLoadingError, InvalidResponse, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry as SyncRetry

from arqonce.addresses import staggered
from arqonce.connection.sentinel import Sentinels
from arqonce.connection.url import RedisURL

ROLE_EVERY = timedelta(seconds=2)
"""Interval at which a connection in use checks that the server is a primary."""

ROLE = ("HELLO",)
"""The command that returns the server's role. Without an argument, it changes nothing."""

_REFUSALS = ("READONLY", "-READONLY", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED")
"""Error replies of servers that were demoted, or that lost contact with servers that may have elected another primary.
``UNBLOCKED`` ends a blocking command at the demotion. ``-READONLY`` comes from a script, before Redis 7."""


class StaleConnectionError(RedisConnectionError):
    """The server refused the command because it is no primary. The connection was closed: reconnect to find another."""


class ReplicaError(ReadOnlyError):
    """New connections lead to a replica."""


class ClusterError(ResponseError):
    """The server is a node of a Redis Cluster, which cannot hold a queue: its keys are spread over several nodes."""


class SentinelPortError(ResponseError):
    """The server is a Sentinel, not Redis."""


def refuses_writes(error: object) -> bool:
    """Return whether the error says that the server is no primary, or no longer one."""
    text = str(error)
    return isinstance(error, ReadOnlyError) or text.startswith(_REFUSALS) or " -READONLY " in text


def leads_elsewhere(error: object) -> bool:
    """Return whether to reconnect: the server refuses writes, or is starting."""
    return isinstance(error, BusyLoadingError) or refuses_writes(error)


def may_be_asked(answer: object) -> bool:
    """Check the reply to ``HELLO``; return whether the server supports the check, so that it may be repeated.

    Raises:
        ReplicaError: the server is a replica.
        ClusterError: the server is a node of a cluster.
        SentinelPortError: the server is a Sentinel.
        ConnectionError, TimeoutError: redis-py's; there was no reply.
    """
    if isinstance(answer, ResponseError):
        return leads_elsewhere(answer)  # any other error comes from a proxy
    if isinstance(answer, BaseException):
        raise answer
    facts = _facts(answer)
    if facts.get("mode") == "cluster":
        raise ClusterError("it is a Redis Cluster")
    if facts.get("mode") == "sentinel":
        raise SentinelPortError("it is a Sentinel")
    if facts.get("role") in {"slave", "replica"}:
        raise ReplicaError("it is a replica and takes no writes")
    return True


def _facts(answer: object) -> dict[object, object]:
    """Return the reply as a dict: a map in RESP3, a flat list in RESP2. Empty for any other type."""
    if isinstance(answer, list | tuple):
        answer = dict(zip(answer[::2], answer[1::2], strict=False))
    return {_text(name): _text(value) for name, value in answer.items()} if isinstance(answer, dict) else {}


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_RESET = "the connection was reset before the command"


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


_Async: Any = AbstractConnection
_Blocking: Any = SyncAbstractConnection
# redis-py's connection classes are mostly untyped, and the methods called on them are abstract.


class Primary(_Async):  # type: ignore[misc] # untyped
    """Mixin for redis-py's connection classes that adds the check of the role. See ``keep_to_primary``."""

    sentinels: Sentinels | None = None
    _owes_role = False
    """Whether the next reply is that to ``HELLO``."""
    _role_due = math.inf

    async def connect(self) -> None:
        """Connect to a primary. Retry for a while if the server is a replica or does not speak Redis' protocol."""
        passing = (ReplicaError, InvalidResponse)
        pauses = Retry(self.retry._backoff, self.retry._retries, supported_errors=passing)  # noqa: SLF001 - redis-py 5 has no public access
        try:
            await pauses.call_with_retry(super().connect, _next)
        except InvalidResponse as error:
            raise RedisConnectionError("the server sent an invalid reply") from error
        except RedisConnectionError as error:
            if isinstance(error.__cause__, RedisTimeoutError):  # redis-py 5 would retry a timeout
                raise error.__cause__ from None
            raise

    async def _connect(self) -> None:
        if self.sentinels is not None:
            self.host, self.port = await self.sentinels.locate()
        try:
            await super()._connect()
        except BaseException:  # including a cancellation by redis-py's timeout
            self._distrust()
            raise

    def _connection_arguments(self) -> dict[str, Any]:
        # A method of redis-py, from 5 to 8, that is not called for Unix sockets.
        return {**super()._connection_arguments(), **staggered(str(self.host))}

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002 - redis-py's
        """Send a command, preceded by ``HELLO`` if the check of the role is due."""
        if not self.is_connected:
            await self.connect()
        if self._writer.transport.is_closing():  # else asyncio raises AttributeError since Python 3.12 (gh-136234)
            await self.disconnect(nowait=True)
            raise RedisConnectionError(_RESET)
        asks, cancelled = check_health and self._is_role_due(), _times_cancelled()
        try:
            await super().send_packed_command(self._with_role(command) if asks else command, check_health)
        except RuntimeError as error:  # from uvloop; redis-py does not convert it, so it would not retry
            if "closed" not in str(error):
                raise
            raise RedisConnectionError(_RESET) from error
        if _times_cancelled() > cancelled:  # asyncio.wait_for has swallowed it, up to Python 3.11 (gh-86296)
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError
        self._owes_role = self._owes_role or asks

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Read a reply; close the connection if the server is no primary."""
        try:
            if self._owes_role:
                await self._read_role()
            return await super().read_response(*args, **kwargs)
        except InvalidResponse as error:  # redis-py would return the connection to its pool
            await self.disconnect(nowait=True)
            raise RedisConnectionError("the server sent an invalid reply") from error
        except ResponseError as error:
            if not refuses_writes(error):
                raise
            await self.disconnect(nowait=True)
            raise StaleConnectionError(str(error)) from error

    async def can_read_destructive(self) -> bool:
        """Return whether there is an unread reply. redis-py's pool calls this up to version 7."""
        return await self._has_unread(super().can_read_destructive)

    async def can_read(self) -> bool:
        """Return whether there is an unread reply. redis-py's pool calls this from version 8."""
        return await self._has_unread(super().can_read)

    async def _has_unread(self, look: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return bool(await look())
        except InvalidResponse as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("the server sent an invalid reply") from error

    async def _read_role(self) -> None:
        self._owes_role = False
        try:
            role = await super().read_response()
        except ResponseError as error:
            role = error
        self._know(role)

    def _begin(self) -> None:
        self._owes_role, self._role_due = False, math.inf  # the greeting comes first

    def _is_role_due(self) -> bool:
        return time.monotonic() >= self._role_due

    def _with_role(self, command: Any) -> list[Any]:  # noqa: ANN401 - redis-py's packed form
        chunks = [command] if isinstance(command, bytes | str) else command
        return [*self.pack_command(*ROLE), *chunks]

    def _know(self, role: object) -> None:
        self._role_due = time.monotonic() + ROLE_EVERY.total_seconds() if may_be_asked(role) else math.inf

    async def greet(self) -> None:
        """Do redis-py's handshake, then check that the server is a primary. The check costs one round trip."""
        self._begin()
        try:
            await self.on_connect()
            await self.send_packed_command(self.pack_command(*ROLE), check_health=False)
            await self._read_role()
        except BaseException:
            self._distrust()
            raise

    def _distrust(self) -> None:
        if self.sentinels is not None:
            self.sentinels.distrust((self.host, self.port))


class SyncPrimary(_Blocking):  # type: ignore[misc] # untyped
    """The same for redis-py's blocking classes, which only connect; then ``sync_wire`` takes over."""

    sentinels: Sentinels | None = None

    def connect(self) -> None:
        """Connect to a primary. Retry for a while if the server is a replica."""
        pauses = SyncRetry(self.retry._backoff, self.retry._retries, supported_errors=(ReplicaError,))  # noqa: SLF001 - as above
        pauses.call_with_retry(super().connect, lambda _error: None)

    def _connect(self) -> Any:  # noqa: ANN401 - a socket
        if self.sentinels is not None:
            self.host, self.port = self.sentinels.locate_blocking()
        try:
            return super()._connect()
        except BaseException:
            self._distrust()
            raise

    def greet(self) -> None:
        """Do redis-py's handshake, then check that the server is a primary. The check costs one round trip."""
        try:
            self.on_connect()
            self.send_command(*ROLE, check_health=False)
            may_be_asked(self._read_role())
        except BaseException:
            self._distrust()
            raise

    def _read_role(self) -> object:
        try:
            return self.read_response()
        except ResponseError as error:
            return error

    def _distrust(self) -> None:
        if self.sentinels is not None:
            self.sentinels.distrust((self.host, self.port))


def keep_to_primary(pool: Any, address: RedisURL) -> None:  # noqa: ANN401 - redis-py's pools, async and blocking
    """Make the pool open connections that stay on the primary, and that find it by Sentinels if the URL names any."""
    is_async = issubclass(pool.connection_class, AbstractConnection)
    mixin = Primary if is_async else SyncPrimary
    sentinels = Sentinels(address, pool.connection_kwargs) if address.sentinels else None
    pool.connection_class = type(mixin.__name__, (mixin, pool.connection_class), {"sentinels": sentinels})
    # redis-py's hook: the name of the handshake method differs between versions.
    pool.connection_kwargs["redis_connect_func"] = _greet if is_async else SyncPrimary.greet


async def _greet(connection: Primary) -> None:
    await connection.greet()  # redis-py checks that this is a coroutine function


async def _next(_error: RedisError) -> None:
    """Do nothing between two attempts: the connection is already closed."""
