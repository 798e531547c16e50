"""Keeps connections on a server that can be written to: one that is a replica by now is left for the next one.

A server may be demoted without cutting its clients. It answers their reads, from what it knew, and refuses their
writes (``READONLY``); only a new connection leads to the primary, by DNS, a proxy or the Sentinels. So our connections
ask for the server's role when they are made, and from time to time along with a command, in the same round trip; and
they are closed at the first refusal. Nothing was done then, so redis-py sends the command again, on a new one.

They ask with ``HELLO``, which no ACL refuses, and which tells a cluster and a Sentinel as well (Redis 6.2). Where a
proxy refuses it, refusals alone tell.
"""

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

from arqonce.connection.sentinel import Sentinels
from arqonce.connection.url import RedisURL

ROLE_EVERY = timedelta(seconds=2)
"""How old the knowledge may be that the server is a primary, on a connection that is used."""

ROLE = ("HELLO",)
"""What is asked: without an argument, it changes nothing."""

_REFUSALS = ("READONLY", "-READONLY", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED")
"""What servers say that were demoted, or cut off from those that may have elected another. ``UNBLOCKED`` ends a
blocking command at the demotion. The second form is a script's, before Redis 7."""


class StaleConnectionError(RedisConnectionError):
    """The server refused as none that is a primary. The connection is closed: the next one may reach another server."""


class ReplicaError(ReadOnlyError):
    """New connections lead to a replica."""


class ClusterError(ResponseError):
    """The server is a node of a Redis Cluster, which cannot hold a queue: its keys lie on several nodes."""


class SentinelPortError(ResponseError):
    """The server is a Sentinel, and not Redis."""


def refuses_writes(error: object) -> bool:
    """Say whether the error is the refusal of a server that is no primary, or not any more."""
    text = str(error)
    return isinstance(error, ReadOnlyError) or text.startswith(_REFUSALS) or " -READONLY " in text


def leads_elsewhere(error: object) -> bool:
    """Say whether the next connection should be made: the server refuses writes, or is starting."""
    return isinstance(error, BusyLoadingError) or refuses_writes(error)


def may_be_asked(answer: object) -> bool:
    """Read the answer to ``HELLO``: return unless it is none of a primary, and say whether it may be asked again.

    Raises:
        ReplicaError: it is a replica.
        ClusterError: it is a node of a cluster.
        SentinelPortError: it is a Sentinel.
        ConnectionError, TimeoutError: redis-py's; there was no answer.
    """
    if isinstance(answer, ResponseError):
        return leads_elsewhere(answer)  # else a proxy
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
    """Return what RESP3 sends as a map and RESP2 as a list; nothing of what is neither."""
    if isinstance(answer, list | tuple):
        answer = dict(zip(answer[::2], answer[1::2], strict=False))
    return {_text(name): _text(value) for name, value in answer.items()} if isinstance(answer, dict) else {}


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_RESET = "the connection was reset before the command"

_Async: Any = AbstractConnection
_Blocking: Any = SyncAbstractConnection
# redis-py's classes of connection have hardly any types, and what is called above is abstract.


class Primary(_Async):  # type: ignore[misc] # of no type
    """What redis-py's classes of connection do besides: mixed in by ``keep_to_primary``."""

    sentinels: Sentinels | None = None
    _owes_role = False
    """Whether the next answer is that to the question for the role."""
    _role_due = math.inf

    async def connect(self) -> None:
        """Connect to a primary, and go on asking for a while where there is a replica, or nothing that is Redis."""
        passing = (ReplicaError, InvalidResponse)
        pauses = Retry(self.retry._backoff, self.retry._retries, supported_errors=passing)  # noqa: SLF001 - redis-py 5 shows them nowhere else
        try:
            await pauses.call_with_retry(super().connect, _next)
        except InvalidResponse as error:
            raise RedisConnectionError("what came is no answer of Redis") from error
        except RedisConnectionError as error:
            if isinstance(error.__cause__, RedisTimeoutError):  # redis-py 5 would repeat what has a limit
                raise error.__cause__ from None
            raise

    async def _connect(self) -> None:
        if self.sentinels is not None:
            self.host, self.port = await self.sentinels.locate()
        try:
            await super()._connect()
        except BaseException:  # a cancellation, too: redis-py's limit
            self._distrust()
            raise

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002 - redis-py's
        """Send a command, and before it the question for the role if that is due."""
        if not self.is_connected:
            await self.connect()
        if self._writer.transport.is_closing():  # an AttributeError of asyncio's since Python 3.12 (gh-136234)
            await self.disconnect(nowait=True)
            raise RedisConnectionError(_RESET)
        asks = check_health and self._is_role_due()
        try:
            await super().send_packed_command(self._with_role(command) if asks else command, check_health)
        except RuntimeError as error:  # uvloop's, which redis-py lets through: nothing would be sent again
            if "closed" not in str(error):
                raise
            raise RedisConnectionError(_RESET) from error
        self._owes_role = self._owes_role or asks

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Read an answer; close the connection if the server is no primary."""
        try:
            if self._owes_role:
                await self._read_role()
            return await super().read_response(*args, **kwargs)
        except InvalidResponse as error:  # redis-py would put the connection back into its pool
            await self.disconnect(nowait=True)
            raise RedisConnectionError("what came is no answer of Redis") from error
        except ResponseError as error:
            if not refuses_writes(error):
                raise
            await self.disconnect(nowait=True)
            raise StaleConnectionError(str(error)) from error

    async def can_read_destructive(self) -> bool:
        """Say whether there is an answer that nobody has read: what redis-py's pool asks, up to version 7."""
        return await self._has_unread(super().can_read_destructive)

    async def can_read(self) -> bool:
        """Say whether there is an answer that nobody has read: what redis-py's pool asks, from version 8 on."""
        return await self._has_unread(super().can_read)

    async def _has_unread(self, look: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return bool(await look())
        except InvalidResponse as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("what came is no answer of Redis") from error

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

    def _with_role(self, command: Any) -> list[Any]:  # noqa: ANN401 - as redis-py packs it
        chunks = [command] if isinstance(command, bytes | str) else command
        return [*self.pack_command(*ROLE), *chunks]

    def _know(self, role: object) -> None:
        self._role_due = time.monotonic() + ROLE_EVERY.total_seconds() if may_be_asked(role) else math.inf

    async def greet(self) -> None:
        """Do redis-py's handshake, and see whether the server is a primary. One round trip for that."""
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


class SyncPrimary(_Blocking):  # type: ignore[misc] # of no type
    """The same for redis-py's blocking classes, which only connect: ``sync_wire`` takes over."""

    sentinels: Sentinels | None = None

    def connect(self) -> None:
        """Connect to a primary, and go on asking for a while where there is a replica."""
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
        """Do redis-py's handshake, and see whether the server is a primary. One round trip for that."""
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


def keep_to_primary(pool: Any, address: RedisURL) -> None:  # noqa: ANN401 - redis-py's pools, of both kinds
    """Let the pool make connections that stay with the primary, and find it by the Sentinels if there are any."""
    is_async = issubclass(pool.connection_class, AbstractConnection)
    mixin = Primary if is_async else SyncPrimary
    sentinels = Sentinels(address, pool.connection_kwargs) if address.sentinels else None
    pool.connection_class = type(mixin.__name__, (mixin, pool.connection_class), {"sentinels": sentinels})
    # redis-py's hook, because the method that greets has another name in each version.
    pool.connection_kwargs["redis_connect_func"] = _greet if is_async else SyncPrimary.greet


async def _greet(connection: Primary) -> None:
    await connection.greet()  # redis-py asks whether this is a coroutine function


async def _next(_error: RedisError) -> None:
    """Do nothing: the connection was closed."""
