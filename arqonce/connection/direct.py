"""A connection to Redis of its owner's own: what is sent is sent once, and it hears what the server tells unasked.

redis-py makes it (address, TLS, password, database); then our protocol takes it over. redis-py reads what the server
tells (RESP3's pushes) only along with the answer to a command, so whoever waits would not hear it; and it spends a
task on each command, which is more than Redis spends on it.
"""

import asyncio
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.connection.primary import (
    ROLE,
    ROLE_EVERY,
    ReplicaError,
    StaleConnectionError,
    leads_elsewhere,
    may_be_asked,
    refuses_writes,
)
from arqonce.connection.redis import is_outage

_LIMIT = timedelta(seconds=5)
"""Longest wait for an answer, as with all other commands. The connection is closed then: its answers may come yet."""

_INCOMPLETE = object()


@cache
def script_sha(script: str) -> str:
    """Return the name by which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def changed_keys(push: Sequence[Any]) -> Sequence[bytes] | None:
    """Return the keys that the server says have changed, ``None`` for all.

    Raises:
        InvalidResponse: redis-py's; that is no word of changes.
    """
    keys = push[1] if len(push) > 1 else []
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, bytes) for key in keys)):
        raise InvalidResponse("it names no keys")
    return keys


_CLOSED = "the connection was closed while it was opened"

_TURNS = 5
"""In how many turns of the loop a closed transport has closed its socket."""


class DirectConnection:
    """One connection; it connects at a command, and again at the next one after it was lost. Not for many at once.

    With ``tracks``, the server is asked to tell of changes by others to keys that were read here (client-side tracking,
    Redis 6), each once after each reading. Reading and hearing are one connection: if one is lost, so is the other.
    """

    def __init__(self, redis: Redis, *, tracks: bool = False) -> None:
        """Connect to nothing yet; to where ``redis`` connects."""
        self._redis = redis
        self._tracks = tracks
        self.refusal: ResponseError | None = None
        """Why the server tells of no changes."""
        self.is_tracking = False
        self.on_change: Callable[[Sequence[bytes] | None], None] = lambda _keys: None
        """Called with the keys that have changed, ``None`` for all."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called when the connection is lost or closed."""
        self._wire: _Wire | None = None
        self._role_due = math.inf
        self._opening: asyncio.Task[_Wire] | None = None

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any], **options: Any) -> Any:  # noqa: ANN401 - what the script answers
        """Run a script; one round trip more when the server does not have it yet. Takes the options of ``call``."""
        try:
            return await self.call("EVALSHA", script_sha(script), len(keys), *keys, *arguments, **options)
        except NoScriptError:
            return await self.call("EVAL", script, len(keys), *keys, *arguments, **options)

    async def call(
        self, *command: str | float | bytes, limit: timedelta = _LIMIT, on_answer: Callable[[], None] | None = None
    ) -> Any:  # noqa: ANN401 - what the server answers
        """Send a command and return its answer. ``on_answer`` is called before anything that the server told later.

        Raises:
            ConnectionError, TimeoutError: redis-py's; the command was carried out or not.
            ResponseError: the server refuses the command.
        """
        wire = await self.open()
        return await wire.send(command, limit.total_seconds(), on_answer)

    async def ask(self, *commands: tuple[str | float | bytes, ...]) -> list[Any]:
        """Send commands together and return their answers. One round trip; otherwise as ``call``.

        A replica answers what only reads. So at times the server is asked for its role in the same round trip.

        Raises:
            ReplicaError: it is no primary any more; the connection is closed.
        """
        wire = await self.open()
        asks_role = time.monotonic() >= self._role_due
        if not asks_role:
            return list(await asyncio.gather(*wire.send_together(commands, _LIMIT.total_seconds())))
        self._role_due = time.monotonic() + ROLE_EVERY.total_seconds()
        sent = wire.send_together((ROLE, *commands), _LIMIT.total_seconds())
        role, *answers = await asyncio.gather(*sent, return_exceptions=True)
        try:
            if not may_be_asked(role):
                self._role_due = math.inf
        except ReplicaError:
            wire.close()
            raise
        return without_error(answers)

    async def transaction(self, *commands: tuple[str | float | bytes, ...]) -> list[Any]:
        """Carry out commands with no other between them, and return their answers. One round trip."""
        answers: list[Any] = (await self.ask(("MULTI",), *commands, ("EXEC",)))[-1]
        return without_error(answers)

    def doubt_role(self) -> None:
        """Let the next ``ask`` see whether the server is a primary, if that may be asked."""
        if self._role_due < math.inf:
            self._role_due = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as is known."""
        return self._wire is not None and not self._wire.is_lost

    async def open(self) -> "_Wire":
        """Connect, unless it is connected. Up to four round trips. One connects for all, and its failure is theirs."""
        if self._wire is not None and not self._wire.is_lost:
            return self._wire
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect_wire(), name="connect to Redis")
            self._opening.add_done_callback(_retrieve)
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if not opening.cancelled():
                raise
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not raised as it is: it would look like a cancellation of the caller's own task.
            raise RedisConnectionError(_CLOSED) from None

    async def _connect_wire(self) -> "_Wire":
        wire = _Wire(await self._connect(), self._hear, self._lose)
        if self._opening is not asyncio.current_task():  # redis-py 5 can lose a cancellation on Python 3.11
            wire.close()
            raise RedisConnectionError(_CLOSED)
        self._wire = wire
        self._role_due = time.monotonic() + ROLE_EVERY.total_seconds()
        return self._wire

    async def _connect(self) -> AbstractConnection:
        self.is_tracking, self.refusal = False, None
        if not self._tracks:
            return await self._connected(protocol=2)
        try:
            connection = await self._connected(protocol=3)
        except ResponseError as error:  # a proxy, or a server before Redis 6
            if is_outage(error):
                raise
            self.refusal = error
            return await self._connected(protocol=2)
        try:
            await connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            await connection.read_response()
            self.is_tracking = True
        except ResponseError as error:
            self.refusal = error
        except BaseException:  # lost, or given up: nobody else would close it
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _connected(self, *, protocol: int) -> AbstractConnection:
        pool = self._redis.connection_pool
        options = {
            "protocol": protocol,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "health_check_interval": 0,
        }
        connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs | options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call] # redis-py's
        except (InvalidResponse, AttributeError, TypeError, IndexError) as error:  # to redis-py, a refusal or a mistake
            await connection.disconnect(nowait=True)
            raise RedisConnectionError("what came is no answer of Redis") from error
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a host's name
            await connection.disconnect(nowait=True)
            raise RedisConnectionError(f"cannot connect ({type(error).__name__})") from error
        except BaseException:  # a cancellation, too
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _hear(self, push: Sequence[Any]) -> None:
        if push[:1] == [b"invalidate"]:
            self.on_change(changed_keys(push))

    def _lose(self) -> None:
        self.on_lost()

    def close(self) -> None:
        """Close it, whatever is under way; the next command opens another."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    async def aclose(self) -> None:
        """Do the same, and return when sockets are closed, also that of a connection which was being opened."""
        opening = self._opening
        self.close()
        if opening is not None:
            await asyncio.wait([opening])
        for _ in range(_TURNS):
            await asyncio.sleep(0)


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Take the error of a connection that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def without_error(answers: list[Any]) -> list[Any]:
    """Return the answers.

    Raises:
        ResponseError: one of them is an error.
    """
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


@dataclass(slots=True)
class _Sent:
    answer: "asyncio.Future[Any]"
    limit: asyncio.TimerHandle
    on_answer: Callable[[], None] | None


class _Wire(asyncio.Protocol):
    """Takes over a connection that redis-py has made."""

    def __init__(
        self, connection: AbstractConnection, hear: Callable[[Sequence[Any]], None], lose: Callable[[], None]
    ) -> None:
        self._hear = hear
        self._lose = lose
        self._sent: deque[_Sent] = deque()
        self._is_refused = False
        self._loop = asyncio.get_running_loop()
        # redis-py offers no way to hand a connection over: from here on it takes it for closed.
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001
            notEnoughData=_INCOMPLETE,
        )
        self._writer = connection._writer  # noqa: SLF001
        connection._reader = connection._writer = None  # noqa: SLF001
        self._transport = cast("asyncio.Transport", self._writer.transport)  # type: ignore[union-attr] # it is connected
        self._transport.set_protocol(self)

    @property
    def is_lost(self) -> bool:
        return self._is_refused or self._transport.is_closing()

    def send(
        self, command: tuple[str | float | bytes, ...], limit: float, on_answer: Callable[[], None] | None
    ) -> "asyncio.Future[Any]":
        self._write(hiredis.pack_command(command))  # type: ignore[arg-type] # typed as a tuple of one
        return self._expect(limit, on_answer)

    def send_together(
        self, commands: Sequence[tuple[str | float | bytes, ...]], limit: float
    ) -> "list[asyncio.Future[Any]]":
        self._write(b"".join(map(hiredis.pack_command, commands)))  # type: ignore[arg-type] # as above
        return [self._expect(limit, None) for _ in commands]

    def _write(self, data: bytes) -> None:
        if self.is_lost:
            raise RedisConnectionError("the connection was lost before the command")
        self._transport.write(data)

    def _expect(self, limit: float, on_answer: Callable[[], None] | None) -> "asyncio.Future[Any]":
        answer = self._loop.create_future()
        self._sent.append(_Sent(answer, self._loop.call_later(limit, self._give_up), on_answer))
        return answer

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                if isinstance(reply, hiredis.PushNotification):
                    self._hear(reply)
                else:
                    self._answer(reply)
        except (RedisError, IndexError) as error:  # nothing that Redis says, or an answer that nobody asked for
            self._end(RedisConnectionError(f"what came is no answer of Redis: {type(error).__name__}"))

    def _answer(self, reply: Any) -> None:  # noqa: ANN401 - anything
        sent = self._sent.popleft()
        sent.limit.cancel()
        if sent.on_answer is not None:
            sent.on_answer()
        if isinstance(reply, Exception) and leads_elsewhere(reply):
            self._is_refused = True
        if self._is_refused and not self._sent:  # what was sent before has its answers
            self._transport.abort()
        if sent.answer.done():  # its caller was cancelled
            return
        if isinstance(reply, Exception):
            sent.answer.set_exception(StaleConnectionError(str(reply)) if refuses_writes(reply) else reply)
        else:
            sent.answer.set_result(reply)

    def _give_up(self) -> None:
        self._end(RedisTimeoutError("Redis did not answer in time"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(RedisConnectionError(f"the connection was lost ({type(exc).__name__ if exc else 'closed'})"))
        self._lose()

    def _end(self, error: RedisError) -> None:
        self._transport.abort()
        while self._sent:
            sent = self._sent.popleft()
            sent.limit.cancel()
            if not sent.answer.done():
                sent.answer.set_exception(error)

    def close(self) -> None:
        self._transport.abort()
