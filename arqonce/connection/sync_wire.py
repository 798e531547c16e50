"""One connection to Redis that threads or greenlets share. Knows no command and no job.

Each sends its question and waits for its own answer; answers come in the order of the questions. There is no thread of
ours: one of those who wait reads for all, and when its own wait is over, it wakes another to go on (leader and
followers). So a greenlet blocks as its socket does, and nobody polls.

No thread closes a socket that another may use. Whoever sees a failure marks the connection as lost, which ends all
waits on it; its locks and questions are dropped with it, and the socket is closed when the last thread has left. An
exception in the middle of reading or writing, also that of a killed greenlet, loses the connection, so that no answer
is ever taken for that of another question.
"""

import itertools
import math
import select
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.connection.direct import changed_keys
from arqonce.connection.primary import ROLE_EVERY

SILENCE = timedelta(seconds=5)
"""A connection that has left a question unanswered for so long is lost: the answer may still come, but too late."""

_LATE = "Redis did not answer in time"
_INCOMPLETE = object()
_RECEIVED_AT_ONCE = 1 << 16
_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Bell:
    """Wakes one thread that waits on a ``Wire``."""

    def __init__(self) -> None:
        """Wait for something that has not happened."""
        self.is_rung = False
        """Whether it has happened, or the connection is lost."""
        self._event = threading.Event()

    def ring(self) -> None:
        """End the wait."""
        self.is_rung = True  # before the event: who wakes up looks here
        self._event.set()

    def wake(self) -> None:
        """Make the thread look whether it has to read."""
        self._event.set()

    def sleep(self, seconds: float) -> None:
        """Return when somebody calls, or after so many seconds."""
        self._event.wait(seconds)
        self._event.clear()


class _Question(Bell):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.asked = time.monotonic()
        self.missing = count
        self.answers: list[Any] = []


class Wire:
    """Takes over a connection that redis-py has made. Safe to share between threads or greenlets, not after a fork."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - redis-py's connections have no types
        """Leave ``connection`` without its socket: redis-py offers no way to hand it over."""
        self.lost: str | None = None
        """Why the connection is of no use any more."""
        self.role_due = time.monotonic() + ROLE_EVERY.total_seconds()
        """When to ask whether the server is a primary still."""
        self._used = time.monotonic()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001 - see above
            notEnoughData=_INCOMPLETE,
        )
        self._socket, connection._sock = connection._sock, None  # noqa: SLF001 - see above
        self._socket.settimeout(0)
        weakref.finalize(self, self._socket.close)
        self._sending = threading.Lock()
        """Held while a question is written, so that the order of questions is that on the wire."""
        self._using = threading.Lock()
        """Held for a moment, in which the socket is read or written: TLS takes no two threads at once."""
        self._state = threading.Lock()
        """Held for a moment, to change what follows."""
        self._asked: deque[_Question] = deque()
        self._leader: Bell | None = None
        """Who reads for all."""
        self._followers: set[Bell] = set()
        self._listeners: dict[bytes, set[Bell]] = {}

    def is_idle(self, linger: timedelta) -> bool:
        """Say whether nobody waits, and nobody has sent anything for so long."""
        return not self._asked and self._leader is None and time.monotonic() - self._used > linger.total_seconds()

    def doubt_role(self) -> None:
        """Let the next question be whether the server is a primary, if that may be asked."""
        if self.role_due < math.inf:
            self.role_due = 0.0

    def ask(self, commands: Sequence[tuple[Any, ...]], seconds: float) -> list[Any]:
        """Send commands together and return their answers; an error that Redis answers is one of them.

        Writing may take so many seconds, and the answer may, too.

        Raises:
            ConnectionError: redis-py's: the connection is lost; the commands were carried out or not.
            TimeoutError: redis-py's: there is no answer in time, or was none to others, for half of it at least.
        """
        question = _Question(len(commands))
        self._send(b"".join(map(hiredis.pack_command, commands)), question, time.monotonic() + seconds)
        question.asked = time.monotonic()
        self.wait(question, question.asked + seconds)
        if not question.missing:
            return question.answers
        if self.lost is None:
            self._give_up()
            raise RedisTimeoutError(_LATE)
        has_waited = time.monotonic() - question.asked > seconds / 2
        raise RedisTimeoutError(_LATE) if has_waited and self.lost == _LATE else RedisConnectionError(self.lost)

    def _send(self, data: bytes, question: _Question, end: float) -> None:
        if not self._sending.acquire(timeout=max(0, end - time.monotonic())):
            self.lose("Redis did not take what was sent before")
            raise RedisTimeoutError("Redis did not take what was sent before")
        try:
            self._line_up(question)
            self._write(memoryview(data), end)
        except BaseException as error:  # half a question may be on its way
            self.lose(f"the connection was lost ({type(error).__name__})")
            if isinstance(error, OSError):
                raise RedisConnectionError(self.lost) from error
            raise
        finally:
            self._sending.release()

    def _line_up(self, question: _Question) -> None:
        with self._state:
            if self.lost is not None:
                raise RedisConnectionError(self.lost)
            self._asked.append(question)
            self._used = time.monotonic()

    def _write(self, data: memoryview, end: float) -> None:
        while data:
            try:
                with self._using:
                    sent = self._socket.send(data)
            except _NOT_READY as error:
                if not self._is_ready(end, to_write=not isinstance(error, ssl.SSLWantReadError)):
                    raise RedisTimeoutError("Redis does not take what is sent") from error
            else:
                data = data[sent:]

    def _give_up(self) -> None:
        with self._state:
            waited = time.monotonic() - self._asked[0].asked if self._asked else 0.0
        if waited >= SILENCE.total_seconds():
            self.lose(_LATE)

    @contextmanager
    def listening(self, key: bytes) -> Iterator[Bell]:
        """Yield a bell that rings when the key is said to have changed, or the connection is lost."""
        bell = Bell()
        with self._state:
            self._listeners.setdefault(key, set()).add(bell)
        try:
            yield bell
        finally:
            with self._state:
                self._listeners[key].discard(bell)
                if not self._listeners[key]:
                    del self._listeners[key]

    def wait(self, bell: Bell, end: float, *, turn: float = math.inf) -> None:
        """Return when the bell has rung, or in time; meanwhile read for all, if nobody else does.

        Whoever reads returns after ``turn`` seconds.
        """
        try:
            while not bell.is_rung and (left := end - time.monotonic()) > 0:
                if self._leads(bell):
                    end = min(end, time.monotonic() + turn)
                    self._read(bell, end)
                else:
                    bell.sleep(left)
        finally:
            self._leave(bell)

    def _leads(self, bell: Bell) -> bool:
        with self._state:
            if self.lost is not None:
                bell.ring()
            elif self._leader is None:
                self._leader = bell
            if self._leader is not bell:
                self._followers.add(bell)
            return self._leader is bell

    def _leave(self, bell: Bell) -> None:
        with self._state:
            self._followers.discard(bell)
            if self._leader is bell:
                self._leader = None
            heir = next(iter(self._followers), None) if self._leader is None else None
            if heir is not None:
                heir.wake()

    def _read(self, bell: Bell, end: float) -> None:
        try:
            while not bell.is_rung and self._is_ready(end):
                self._take(self._receive())
        except (RedisError, OSError) as error:
            self.lose(f"the connection was lost ({type(error).__name__}: {error})")
        except BaseException:
            self.lose("the thread that read was interrupted")
            raise

    def _is_ready(self, end: float, *, to_write: bool = False) -> bool:
        """Wait until the socket can be read or written; say whether it can, or is at its end."""
        if not to_write and self._has_decrypted():
            return True
        seconds, number = max(0.0, end - time.monotonic()), self._socket.fileno()
        if not hasattr(select, "poll"):  # Windows
            return any(select.select([] if to_write else [number], [number] if to_write else [], [], seconds))
        poll = select.poll()  # looked up here: gevent replaces it
        poll.register(number, select.POLLOUT if to_write else select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _has_decrypted(self) -> bool:
        with self._using:
            return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _receive(self) -> bytes:
        try:
            with self._using:
                data: bytes = self._socket.recv(_RECEIVED_AT_ONCE)
        except _NOT_READY:  # part of a record of TLS
            return b""
        if not data:
            raise RedisConnectionError("closed by the server")
        return data

    def _take(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _INCOMPLETE:
            if isinstance(reply, hiredis.PushNotification):
                self._hear(reply)
            else:
                self._answer(reply)

    def _answer(self, reply: Any) -> None:  # noqa: ANN401 - anything
        with self._state:
            if not self._asked:
                raise RedisConnectionError("an answer that nobody asked for")
            question = self._asked[0]
            question.answers.append(reply)
            question.missing -= 1
            if not question.missing:
                self._asked.popleft()
                question.ring()

    def _hear(self, push: Sequence[Any]) -> None:
        if push[:1] != [b"invalidate"]:
            return
        keys = changed_keys(push)
        with self._state:
            for key in list(self._listeners) if keys is None else keys:
                for bell in self._listeners.get(key, ()):
                    bell.ring()

    def lose(self, why: str) -> None:
        """End all waits on this connection, now and later. The socket stays open until nobody uses it."""
        with self._state:
            self.lost = self.lost or why
            for bell in (*self._asked, *self._followers, *itertools.chain(*self._listeners.values())):
                bell.ring()
        with suppress(OSError):  # not the method of a socket with TLS, which changes the object under its reader
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
