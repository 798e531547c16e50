"""Asks Redis Sentinels where the primary is, anew at each connect. Opens a short connection each time, and keeps none.

That is what Sentinel's guide for clients asks for (redis.io, "Guidelines for Redis clients with support for Redis
Sentinel"): ask one Sentinel after the other, go where the first one that knows says, and see by its role that it
is true. redis-py's own classes are not used: their pool raises when it is full, they keep connections to Sentinels that
no fork may share, and neither has a limit for all Sentinels together.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import redis.asyncio.connection as aio
import redis.connection as blocking
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry as SyncRetry

from arqonce.connection.url import LAST_PORT, RedisURL

_LIMIT = timedelta(seconds=3)
"""Longest time to ask all Sentinels, which is that of any other connect. Each gets its share, at most a second."""

_Place = tuple[str, int]


class SentinelError(RedisConnectionError):
    """No Sentinel says where the primary is; the text says why not, and repeats no password."""


class SentinelTimeoutError(RedisTimeoutError):
    """The same, and one of them has not answered in time: as with all limits, redis-py does not ask again."""


class Sentinels:
    """The Sentinels of one primary. Safe to share between tasks, threads and forks."""

    def __init__(self, address: RedisURL, options: Mapping[str, Any]) -> None:
        """Ask nothing yet. ``options`` are those of connections to the primary; TLS and names are the same for both."""
        self._primary = address.primary or ""
        self._order: Sequence[_Place] = address.sentinels
        """Whoever answered last comes first. Replaced, never changed: threads share it."""
        self._told: tuple[_Place, _Place] | None = None
        """Who answered last, and where the primary is by its word."""
        self._is_tls = address.is_tls
        self._each = min(1.0, _LIMIT.total_seconds() / len(address.sentinels))
        alike = ("ssl_", "lib_", "driver_")
        self._options = {name: value for name, value in options.items() if name.startswith(alike)} | {
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            "socket_timeout": self._each,
            "socket_connect_timeout": self._each,
            "protocol": 2,
        }

    async def locate(self) -> _Place:
        """Return host and port of the primary. Three round trips to a Sentinel, with its handshake.

        Raises:
            SentinelError: no Sentinel knows it.
            SentinelTimeoutError: the same, and one has not answered in time; 3 s for all together.
        """
        failures: dict[_Place, Exception] = {}
        for place in self._order:
            try:
                async with asyncio.timeout(self._each):
                    return self._found(place, await self._ask(place))
            except (RedisError, OSError, UnicodeError) as error:
                failures[place] = error
        raise self._unknown(failures)

    def locate_blocking(self) -> _Place:
        """Do the same as ``locate`` without an event loop."""
        failures: dict[_Place, Exception] = {}
        end = time.monotonic() + _LIMIT.total_seconds()
        for place in self._order:
            try:
                if time.monotonic() > end:
                    raise RedisTimeoutError("there was no time left")
                return self._found(place, self._ask_blocking(place))
            except (RedisError, OSError, UnicodeError) as error:
                failures[place] = error
        raise self._unknown(failures)

    def distrust(self, found: _Place) -> None:
        """Ask another Sentinel first next time: where the last one sent us there is no primary, or nobody.

        One that was cut off from the others tells for ever what was. Of many who were sent there, one says so.
        """
        if self._told == (self._order[0], found):
            self._order = (*self._order[1:], *self._order[:1])

    async def _ask(self, place: _Place) -> _Place:
        kind = aio.SSLConnection if self._is_tls else aio.Connection
        connection: Any = kind(host=place[0], port=place[1], retry=Retry(NoBackoff(), 0), **self._options)
        try:
            await connection.connect()
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._primary)
            return self._read(await connection.read_response())
        finally:
            await connection.disconnect(nowait=True)

    def _ask_blocking(self, place: _Place) -> _Place:
        kind = blocking.SSLConnection if self._is_tls else blocking.Connection
        connection: Any = kind(host=place[0], port=place[1], retry=SyncRetry(NoBackoff(), 0), **self._options)
        try:
            connection.connect()
            connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._primary)
            return self._read(connection.read_response())
        finally:
            connection.disconnect()

    def _found(self, place: _Place, found: _Place) -> _Place:
        if self._order[0] != place:
            self._order = (place, *(other for other in self._order if other != place))
        self._told = (place, found)
        return found

    def _read(self, answer: Any) -> _Place:  # noqa: ANN401 - what a server answers
        match answer:
            case [bytes(host), bytes(port)] if (
                host.isascii() and host and port.isdigit() and 0 < int(port) <= LAST_PORT
            ):
                return host.decode(), int(port)
            case None:
                raise ResponseError(f"knows no {self._primary}")
        raise ResponseError("is none")

    def _unknown(self, failures: Mapping[_Place, Exception]) -> RedisError:
        told = "; ".join(f"{host}:{port} {_reason(error)}" for (host, port), error in failures.items())
        was_late = any(isinstance(error, TimeoutError | RedisTimeoutError) for error in failures.values())
        error = SentinelTimeoutError(told) if was_late else SentinelError(told)
        error.__cause__ = next(iter(failures.values()))
        return error


def _reason(error: Exception) -> str:
    match error:
        case AuthenticationError():
            return "refuses the user or password: correct sentinel_password, or REDIS_SENTINEL_PASSWORD"
        case ResponseError():
            return str(error)
    return f"cannot be reached ({type(error).__name__})"
