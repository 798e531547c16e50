"""A dedicated connection to Redis that sends each command once and receives push messages at any time.

redis-py opens it (address, TLS, password, database); then a protocol of this module takes it over. redis-py reads
RESP3's push messages only along with the reply to a command, too late for a waiting client. It also creates a task for
each command, which costs more time than Redis needs for it.
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
"""Longest wait for a reply, as for all other commands. Then the connection is closed: late replies may still arrive.
The wait goes on as long as earlier replies, or parts of this one, arrive, or Redis takes what is sent: large messages
of many callers need their time on a slow network."""

_INCOMPLETE = object()


@cache
def script_sha(script: str) -> str:
    """Return the SHA1 digest by which Redis identifies a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def changed_keys(push: Sequence[Any]) -> Sequence[bytes] | None:
    """Return the keys that an invalidation message names; ``None`` means all keys.

    Raises:
        InvalidResponse: redis-py's; the message is not valid.
    """
    keys = push[1] if len(push) > 1 else []
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, bytes) for key in keys)):
        raise InvalidResponse("the invalidation message names no keys")
    return keys


_CLOSED = "the connection was closed while it was being opened"

_TURNS = 5
"""Iterations of the event loop after which a closed transport has closed its socket."""


class DirectConnection:
    """One connection. It connects at its first command, and reconnects at the next command after a loss.

    With ``tracks``, the server reports changes by other clients to keys that were read here (client-side tracking,
    Redis 6): one notification after each read. Reads and notifications share the connection, so they are lost together.
    """

    def __init__(self, redis: Redis, *, tracks: bool = False) -> None:
        """Use the address and options of ``redis``. Connects later."""
        self._redis = redis
        self._tracks = tracks
        self.refusal: ResponseError | None = None
        """Why the server refused tracking; ``None`` if it did not."""
        self.is_tracking = False
        self.on_change: Callable[[Sequence[bytes] | None], None] = lambda _keys: None
        """Called with the keys that have changed; ``None`` means all keys."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called when the connection is lost or closed."""
        self._wire: _Wire | None = None
        self._role_due = math.inf
        self._opening: asyncio.Task[_Wire] | None = None

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any], **options: Any) -> Any:  # noqa: ANN401 - the script's reply
        """Run a script. One round trip, two if the server does not have it cached. Takes the options of ``call``."""
        try:
            return await self.call("EVALSHA", script_sha(script), len(keys), *keys, *arguments, **options)
        except NoScriptError:
            return await self.call("EVAL", script, len(keys), *keys, *arguments, **options)

    async def call(
        self, *command: str | float | bytes, limit: timedelta = _LIMIT, on_answer: Callable[[], None] | None = None
    ) -> Any:  # noqa: ANN401 - the server's reply
        """Send a command and return its reply.

        ``on_answer`` is called for a reply that is no error, before later messages of the server are handled.

        Raises:
            ConnectionError, TimeoutError: redis-py's; the command may have been executed.
            ResponseError: the server refused the command.
        """
        wire = await self.open()
        return await wire.send(command, limit.total_seconds(), on_answer)

    async def ask(self, *commands: tuple[str | float | bytes, ...]) -> list[Any]:
        """Send commands together and return their replies. One round trip; raises the errors of ``call``.

        A replica also answers reads, so the server's role is checked periodically in the same round trip.

        Raises:
            ReplicaError: the server is no longer a primary; the connection was closed.
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

    async def together(self, *commands: tuple[str | float | bytes, ...]) -> list[Any]:
        """Send commands together and return their replies, without a check of the role: one of them must be a write.

        One round trip; raises the errors of ``call``.
        """
        wire = await self.open()
        sent = wire.send_together(commands, _LIMIT.total_seconds())
        return without_error(await asyncio.gather(*sent, return_exceptions=True))

    async def transaction(self, *commands: tuple[str | float | bytes, ...]) -> list[Any]:
        """Execute commands as a transaction (MULTI, EXEC) and return their replies. One round trip."""
        answers: list[Any] = (await self.ask(("MULTI",), *commands, ("EXEC",)))[-1]
        return without_error(answers)

    def doubt_role(self) -> None:
        """Make the next ``ask`` check the server's role, if the server supports that."""
        if self._role_due < math.inf:
            self._role_due = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return self._wire is not None and not self._wire.is_lost

    async def open(self) -> "_Wire":
        """Connect if necessary. Up to four round trips. Concurrent callers share one attempt and its failure."""
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
            # Not raised as CancelledError, which would look like a cancellation of the caller's own task.
            raise RedisConnectionError(_CLOSED) from None

    async def _connect_wire(self) -> "_Wire":
        wire = _Wire(await self._connect(), self._hear, self._lose)
        if self._opening is not asyncio.current_task():  # redis-py 5 can lose a cancellation on Python 3.11
            wire.close()
            raise asyncio.CancelledError  # as if it had not: asyncio.run prints other errors of tasks that it cancels
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
        except BaseException:  # lost or cancelled: nobody else would close it
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
        except (InvalidResponse, AttributeError, TypeError, IndexError) as error:  # all mean an invalid reply
            await connection.disconnect(nowait=True)
            raise RedisConnectionError("the server sent an invalid reply") from error
        except (OSError, UnicodeError) as error:  # UnicodeError for an invalid host name
            await connection.disconnect(nowait=True)
            raise RedisConnectionError(f"cannot connect ({type(error).__name__})") from error
        except BaseException:  # including a cancellation
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _hear(self, push: Sequence[Any]) -> None:
        if push[:1] == [b"invalidate"]:
            self.on_change(changed_keys(push))

    def _lose(self) -> None:
        self.on_lost()

    def close(self) -> None:
        """Close the connection; commands in progress fail. The next command opens a new one."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    async def aclose(self) -> None:
        """Do the same, and wait until all sockets are closed, including that of a connection being opened."""
        opening = self._opening
        self.close()
        if opening is not None:
            await asyncio.wait([opening])
        for _ in range(_TURNS):
            await asyncio.sleep(0)


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Retrieve the error of an attempt that nobody awaits any more, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


def without_error(answers: list[Any]) -> list[Any]:
    """Return the replies.

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
    since: float
    limit: float
    on_answer: Callable[[], None] | None


class _Wire(asyncio.Protocol):
    """Takes over a connection that redis-py opened."""

    def __init__(
        self, connection: AbstractConnection, hear: Callable[[Sequence[Any]], None], lose: Callable[[], None]
    ) -> None:
        self._hear = hear
        self._lose = lose
        self._sent: deque[_Sent] = deque()
        self._is_refused = False
        self._moved = 0.0
        """When part of a reply arrived last, or Redis was seen to take what is sent."""
        self._unsent = 0
        self._check: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        # redis-py has no API to hand over a connection. From here on it considers the connection closed.
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
        self._unsent = self._transport.get_write_buffer_size()

    def _expect(self, limit: float, on_answer: Callable[[], None] | None) -> "asyncio.Future[Any]":
        answer, now = self._loop.create_future(), self._loop.time()
        self._sent.append(_Sent(answer, now, limit, on_answer))
        self._check_at(now + limit)
        return answer

    def _check_at(self, due: float) -> None:
        """Look once for all commands: a timer for each of thousands would cost more than the commands."""
        if self._check is None or due < self._check.when():
            if self._check is not None:
                self._check.cancel()
            self._check = self._loop.call_at(due, self._look_at_limits)

    def _look_at_limits(self) -> None:
        self._check = None
        unsent, now = self._transport.get_write_buffer_size(), self._loop.time()
        if unsent < self._unsent:
            self._moved, self._unsent = now, unsent
        due = min((max(sent.since, self._moved) + sent.limit for sent in self._sent), default=None)
        if due is not None and due <= now:
            self._end(RedisTimeoutError("Redis did not answer in time"))
        elif due is not None:
            self._check_at(due)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                if isinstance(reply, hiredis.PushNotification):
                    self._hear(reply)
                else:
                    self._moved = self._loop.time()
                    self._answer(reply)
            if self._reader.has_data():
                self._moved = self._loop.time()
        except (RedisError, IndexError) as error:  # an invalid reply, or a reply without a request
            self._end(RedisConnectionError(f"the server sent an invalid reply: {type(error).__name__}"))

    def _answer(self, reply: Any) -> None:  # noqa: ANN401 - any reply
        sent = self._sent.popleft()
        if sent.on_answer is not None and not isinstance(reply, Exception):
            sent.on_answer()
        if isinstance(reply, Exception) and leads_elsewhere(reply):
            self._is_refused = True
        if self._is_refused and not self._sent:  # all earlier commands have their replies
            self._transport.abort()
        if sent.answer.done():  # its caller was cancelled
            return
        if isinstance(reply, Exception):
            sent.answer.set_exception(StaleConnectionError(str(reply)) if refuses_writes(reply) else reply)
        else:
            sent.answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(RedisConnectionError(f"the connection was lost ({type(exc).__name__ if exc else 'closed'})"))
        self._lose()

    def _end(self, error: RedisError) -> None:
        self._transport.abort()
        if self._check is not None:
            self._check.cancel()
            self._check = None
        while self._sent:
            sent = self._sent.popleft()
            if not sent.answer.done():
                sent.answer.set_exception(error)

    def close(self) -> None:
        self._transport.abort()
