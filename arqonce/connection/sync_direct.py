"""Opens the connection that threads or greenlets share, and reopens it after a loss or a fork. Knows no job.

The blocking counterpart of ``direct``. All calls have a time limit: see ``SyncDirectConnection``.
"""

import copy
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from arqonce.connection.direct import script_sha, without_error
from arqonce.connection.primary import (
    ROLE,
    ROLE_EVERY,
    ReplicaError,
    StaleConnectionError,
    leads_elsewhere,
    may_be_asked,
    refuses_writes,
)
from arqonce.connection.redis import CLOSED, is_outage
from arqonce.connection.sync_wire import SILENCE, Wire
from arqonce.connection.tracking import LINGER, NOT_TOLD, PROOF_LIMIT, RECONNECT_PAUSES, proof_key, tell_once

AnswerT = TypeVar("AnswerT")
Command = tuple[str | float | bytes, ...]

SHORTEST = timedelta(seconds=1)
"""Shortest wait for a reply, even if the caller's timeout ends earlier."""


class SyncDirectConnection:
    """One connection for all callers. Raises redis-py's errors.

    A call ends with a reply or an error at most 5 s after Redis stopped answering, however long its answers take. If
    the connection was lost and had to be reopened, it may take 5 s longer for connecting, and 1 s for the reply.
    """

    def __init__(self, redis: Redis, *, tracks: bool = False) -> None:
        """Use the address and options of ``redis``. Connects later. ``tracks``: client-side tracking (Redis 6)."""
        self._redis = redis
        self._tracks = tracks
        self.is_tracking = False
        """Whether Redis reports changes. A proxy, an ACL, or a server before Redis 6 may refuse tracking."""
        self._is_closed = False
        self._begin()

    def _begin(self) -> None:
        self._opening = threading.Lock()
        self._wire: Wire | None = None
        self._failure: tuple[float, Exception] | None = None
        """Time and error of the last failed attempt to connect."""
        self._pid = os.getpid()

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | float | bytes]) -> Any:  # noqa: ANN401 - the script's reply
        """Run a script. One round trip, two if the server does not have it cached."""
        rest = (len(keys), *keys, *arguments)
        try:
            return self.ask(("EVALSHA", script_sha(script), *rest))[0]
        except NoScriptError:
            return self.ask(("EVAL", script, *rest))[0]

    def transaction(self, *commands: Command) -> list[Any]:
        """Execute commands as a transaction (MULTI, EXEC) and return their replies. One round trip."""
        answers: list[Any] = self.ask(("MULTI",), *commands, ("EXEC",))[-1]
        return without_error(answers)

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands and return their replies. Retry on a new connection after a loss. One round trip."""
        end = time.monotonic() + SILENCE.total_seconds()
        return self.again(lambda wire: question(wire, commands, end), end, is_passing=_is_loss)

    def again(
        self, action: Callable[[Wire], AnswerT], end: float, *, is_passing: Callable[[Exception], bool]
    ) -> AnswerT:
        """Run the action. After a temporary error, retry on a new connection for about 1 s, or until ``end``."""
        for pause in RECONNECT_PAUSES:
            try:
                return action(self.open(end))
            except RedisError as error:
                is_late = isinstance(error, RedisTimeoutError) or time.monotonic() + pause > end
                if is_late or self._is_closed or not is_passing(error):
                    raise
            time.sleep(pause)
        return action(self.open(end))

    def open(self, end: float) -> Wire:
        """Return the connection; connect if necessary. Concurrent callers share one attempt and its failure."""
        if self._pid != os.getpid():  # forked: lock and connection belong to the parent
            self._begin()
        wire = self._usable()
        if wire is not None:
            return wire
        came = time.monotonic()
        opening = self._opening
        if not opening.acquire(timeout=max(SHORTEST.total_seconds(), end - came)):
            self._opening = threading.Lock()  # a killed greenlet may have left it locked
            raise RedisTimeoutError("Redis did not accept a connection in time")
        try:
            return self._usable() or self._connect(came)
        finally:
            opening.release()

    def _usable(self) -> Wire | None:
        wire = self._wire
        if wire is None or wire.lost is not None:
            return None
        # A firewall or proxy may have silently dropped an idle connection.
        return None if wire.is_idle(LINGER) else wire

    def _connect(self, came: float) -> Wire:
        if self._failure is not None and self._failure[0] >= came:  # another caller has tried since
            raise copy.copy(self._failure[1]) from self._failure[1]
        self._lose("the connection was idle for too long")
        try:
            wire = Wire(self._tracking() if self._tracks else _connected(self._redis, protocol=2))
        except RedisError as error:
            self._failure = (time.monotonic(), error)
            raise
        if self.is_tracking:
            self.is_tracking = self._is_told(wire)
        self._wire = wire
        if self._is_closed:  # meanwhile
            self._lose(CLOSED)
        return wire

    def _tracking(self) -> Any:  # noqa: ANN401 - redis-py's connections have no types
        self.is_tracking = False
        try:
            connection = _connected(self._redis, protocol=3)
        except ResponseError as error:  # a proxy, or a server before Redis 6
            if is_outage(error):
                raise
            return _connected(self._redis, protocol=2)
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            connection.read_response()
            self.is_tracking = True
        except ResponseError:
            pass
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _is_told(self, wire: Wire) -> bool:
        """Prove that Redis reports a change (see ``tracking``): read a key here, write it on another connection."""
        key, end = proof_key(), time.monotonic() + PROOF_LIMIT.total_seconds()
        with wire.listening(key.encode()) as bell:
            question(wire, (("EXISTS", key),), end)
            try:
                self._change(key)
            except RedisError:  # an ACL forbids the key, or Redis has no more connections: nothing was proved
                return True
            wire.wait(bell, end)
        if not bell.is_rung:
            tell_once(NOT_TOLD)
        return bell.is_rung

    def _change(self, key: str) -> None:
        beside = _connected(self._redis, protocol=2)
        try:
            beside.send_command("SET", key, "", "PX", 1)
            beside.read_response()
        finally:
            beside.disconnect()

    def _lose(self, why: str) -> None:
        wire, self._wire = self._wire, None
        if wire is not None and self._pid == os.getpid():
            wire.lose(why)

    def close(self) -> None:
        """Close the connection for good. Waits in progress raise a connection error."""
        self._is_closed = True
        self._lose(CLOSED)


def question(wire: Wire, commands: Sequence[Command], end: float, *, last: float = math.inf) -> list[Any]:
    """Send commands and return their replies. One round trip.

    Redis may be silent until ``end``, for 1 to 5 s; while it is not, the wait ends at ``last``.

    Raises:
        ResponseError: Redis refused one of them.
        ConnectionError, TimeoutError: redis-py's; the commands may have been executed.
    """
    left = max(SHORTEST.total_seconds(), end - time.monotonic())
    asks_role = time.monotonic() >= wire.role_due
    if asks_role:  # a replica also answers reads
        wire.role_due = time.monotonic() + ROLE_EVERY.total_seconds()
        commands = (ROLE, *commands)
    answers = wire.ask(commands, min(left, SILENCE.total_seconds()), last=last)
    if any(leads_elsewhere(answer) for answer in answers if isinstance(answer, Exception)):
        wire.lose("the server does not accept writes, or not yet")
    if asks_role:
        _know_role(wire, answers.pop(0))
    return without_error(
        [
            StaleConnectionError(str(answer)) if isinstance(answer, Exception) and refuses_writes(answer) else answer
            for answer in answers
        ]
    )


def _know_role(wire: Wire, role: object) -> None:
    try:
        if not may_be_asked(role):
            wire.role_due = math.inf
    except ReplicaError as error:
        wire.lose(str(error))
        raise


def _is_loss(error: Exception) -> bool:
    return isinstance(error, RedisConnectionError | ReplicaError)


def _connected(redis: Redis, *, protocol: int) -> Any:  # noqa: ANN401 - redis-py's connections have no types
    pool = redis.connection_pool
    options = {"protocol": protocol, "retry": Retry(NoBackoff(), 0), "retry_on_error": [], "health_check_interval": 0}
    connection = pool.connection_class(**pool.connection_kwargs | options)
    try:
        connection.connect()
    except (InvalidResponse, AttributeError, TypeError, IndexError) as error:  # all mean an invalid reply
        connection.disconnect()
        raise RedisConnectionError("the server sent an invalid reply") from error
    except (OSError, UnicodeError) as error:  # UnicodeError for an invalid host name
        connection.disconnect()
        raise RedisConnectionError(f"cannot connect ({type(error).__name__})") from error
    except BaseException:  # including a killed greenlet
        connection.disconnect()
        raise
    return connection
