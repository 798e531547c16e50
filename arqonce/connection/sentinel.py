"""Asks Redis Sentinels for the address of the primary, at each connect, over a short-lived connection.

It follows Sentinel's guide for clients (redis.io, "Guidelines for Redis clients with support for Redis Sentinel"): ask
one Sentinel after the other, connect to the address from the first one that knows it, and verify the server's role.
redis-py's own classes are not used: their pool raises when it is full, they keep connections to Sentinels that forked
processes must not share, and they have no timeout for all Sentinels together.
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
from arqonce.unreachable import why_unreachable

_LIMIT = timedelta(seconds=3)
"""Longest time to ask all Sentinels, the same as for any other connect. Each gets an equal share, at most 1 s."""

_Place = tuple[str, int]


class SentinelError(RedisConnectionError):
    """No Sentinel knows the primary. The text says why and repeats no password."""


class SentinelTimeoutError(RedisTimeoutError):
    """No Sentinel knows the primary, and one did not answer in time. redis-py does not retry timeouts."""


class Sentinels:
    """The Sentinels of one primary. Safe to share between tasks, threads and forks."""

    def __init__(self, address: RedisURL, options: Mapping[str, Any]) -> None:
        """Store the options of connections to the primary; TLS and names also apply to Sentinels. Does not connect."""
        self._primary = address.primary or ""
        self._order: Sequence[_Place] = address.sentinels
        """The Sentinels; the last one that answered comes first. Replaced, never mutated: threads share it."""
        self._told: tuple[_Place, _Place] | None = None
        """The last Sentinel that answered, and the primary's address that it returned."""
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
        """Return host and port of the primary. Three round trips to a Sentinel, including the handshake.

        Raises:
            SentinelError: no Sentinel knows the primary.
            SentinelTimeoutError: the same, and one did not answer in time. The limit is 3 s for all together.
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
                    raise RedisTimeoutError("the time for all Sentinels was used up")
                return self._found(place, self._ask_blocking(place))
            except (RedisError, OSError, UnicodeError) as error:
                failures[place] = error
        raise self._unknown(failures)

    def distrust(self, found: _Place) -> None:
        """Ask another Sentinel first next time: the address from the last one has no primary, or no server.

        A Sentinel that is cut off from the others returns an outdated address for ever. If many connections fail at
        that address, only the first call has an effect.
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

    def _read(self, answer: Any) -> _Place:  # noqa: ANN401 - the server's reply
        match answer:
            case [bytes(host), bytes(port)] if (
                host.isascii() and host and port.isdigit() and 0 < int(port) <= LAST_PORT
            ):
                return host.decode(), int(port)
            case None:
                raise ResponseError(f"knows no {self._primary}")
        raise ResponseError("is not a Sentinel")

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
    return f"cannot be reached ({why_unreachable(error)})"
