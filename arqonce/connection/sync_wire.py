"""One connection to Redis that threads or greenlets share. Knows no command and no job.

Each caller sends its request and waits for its own reply; replies arrive in the order of the requests. There is no
reader thread: one of the waiting callers reads for all, and when its own wait is over, it wakes another to continue
(leader and followers). A greenlet therefore blocks only on its socket, and nobody polls.

No thread closes a socket that another may use. A thread that sees a failure marks the connection as lost, which ends
all waits on it. Its locks and requests are dropped with it, and the socket is closed when the last thread has left. An
exception during reading or writing, including that of a killed greenlet, loses the connection, so that no reply is ever
matched to the wrong request.
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
"""A connection with a request that is unanswered for this long is lost. A later reply is not used. The wait goes on as
long as earlier replies, or parts of this one, arrive: large results of many callers need their time on a slow network.
"""

_LATE = "Redis did not answer in time"
_INCOMPLETE = object()
_RECEIVED_AT_ONCE = 1 << 16
_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Bell:
    """Wakes one thread that waits on a ``Wire``."""

    def __init__(self) -> None:
        """Create a bell that has not rung."""
        self.is_rung = False
        """Whether the awaited event has happened, or the connection is lost."""
        self._event = threading.Event()

    def ring(self) -> None:
        """End the wait."""
        self.is_rung = True  # before the event: the woken thread checks this
        self._event.set()

    def wake(self) -> None:
        """Wake the thread, to check whether it has to become the reader."""
        self._event.set()

    def sleep(self, seconds: float) -> None:
        """Wait until ``ring`` or ``wake`` is called, at most this many seconds."""
        self._event.wait(seconds)
        self._event.clear()


class _Question(Bell):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.asked = time.monotonic()
        self.missing = count
        self.answers: list[Any] = []


class Wire:
    """Takes over a connection that redis-py opened. Safe to share between threads or greenlets, not after a fork."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - redis-py's connections have no types
        """Take the socket from ``connection``: redis-py has no API for this."""
        self.lost: str | None = None
        """Why the connection is lost; ``None`` while it is usable."""
        self.role_due = time.monotonic() + ROLE_EVERY.total_seconds()
        """When to check again that the server is a primary."""
        self._used = time.monotonic()
        self._received = self._accepted = 0.0
        """When part of a reply has arrived, and when Redis has taken data, for the last time."""
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001 - see above
            notEnoughData=_INCOMPLETE,
        )
        self._socket, connection._sock = connection._sock, None  # noqa: SLF001 - see above
        self._socket.settimeout(0)
        weakref.finalize(self, self._socket.close)
        self._sending = threading.Lock()
        """Held while a request is written, so that the list of requests has the order on the wire."""
        self._using = threading.Lock()
        """Held briefly to read or write the socket: a TLS socket is not safe for two threads."""
        self._state = threading.Lock()
        """Held briefly to change the attributes below."""
        self._asked: deque[_Question] = deque()
        self._leader: Bell | None = None
        """The caller that reads for all."""
        self._followers: set[Bell] = set()
        self._listeners: dict[bytes, set[Bell]] = {}

    def is_idle(self, linger: timedelta) -> bool:
        """Return whether nobody waits, and nobody has sent anything for this long."""
        return not self._asked and self._leader is None and time.monotonic() - self._used > linger.total_seconds()

    def doubt_role(self) -> None:
        """Make the next request check the server's role, if the server supports that."""
        if self.role_due < math.inf:
            self.role_due = 0.0

    def ask(self, commands: Sequence[tuple[Any, ...]], seconds: float, *, last: float = math.inf) -> list[Any]:
        """Send commands together and return their replies; error replies are returned, not raised.

        ``seconds`` limits how long Redis takes no data and, separately, how long it sends none; the wait for the
        replies ends at ``last`` in any case.

        Raises:
            ConnectionError: redis-py's. The connection is lost; the commands may have been executed.
            TimeoutError: redis-py's. No reply in time, or none to other callers for at least half of that time.
        """
        question = _Question(len(commands))
        self._send(b"".join(map(hiredis.pack_command, commands)), question, seconds)
        question.asked = time.monotonic()
        while not question.is_rung and time.monotonic() < (end := min(last, self._silent_since(question) + seconds)):
            self.wait(question, end)
        if not question.missing:
            return question.answers
        if self.lost is None:
            self._give_up()
            raise RedisTimeoutError(_LATE)
        has_waited = time.monotonic() - question.asked > seconds / 2
        raise RedisTimeoutError(_LATE) if has_waited and self.lost == _LATE else RedisConnectionError(self.lost)

    def _silent_since(self, question: _Question) -> float:
        return max(question.asked, self._received)

    def _send(self, data: bytes, question: _Question, seconds: float) -> None:
        came = time.monotonic()
        while not self._sending.acquire(timeout=max(0, max(came, self._accepted) + seconds - time.monotonic())):
            if time.monotonic() >= max(came, self._accepted) + seconds:
                self.lose("Redis did not accept earlier data in time")
                raise RedisTimeoutError("Redis did not accept earlier data in time")
        try:
            self._line_up(question)
            self._write(memoryview(data), seconds)
        except BaseException as error:  # part of a request may have been sent
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

    def _write(self, data: memoryview, seconds: float) -> None:
        self._accepted = time.monotonic()
        while data:
            try:
                with self._using:
                    sent = self._socket.send(data)
            except _NOT_READY as error:
                if not self._is_ready(self._accepted + seconds, to_write=not isinstance(error, ssl.SSLWantReadError)):
                    raise RedisTimeoutError("Redis does not accept data in time") from error
            else:
                data, self._accepted = data[sent:], time.monotonic()

    def _give_up(self) -> None:
        with self._state:
            waited = time.monotonic() - self._silent_since(self._asked[0]) if self._asked else 0.0
        if waited >= SILENCE.total_seconds():
            self.lose(_LATE)

    @contextmanager
    def listening(self, key: bytes) -> Iterator[Bell]:
        """Yield a bell that rings when Redis reports a change of the key, or the connection is lost."""
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
        """Wait until the bell rings or until ``end``. Meanwhile, read for all callers if nobody else does.

        A caller that reads returns after ``turn`` seconds.
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
            self.lose("the reading thread was interrupted")
            raise

    def _is_ready(self, end: float, *, to_write: bool = False) -> bool:
        """Wait until the socket is readable or writable, or closed; return ``False`` after ``end``."""
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
        except _NOT_READY:  # an incomplete TLS record
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
                self._received = time.monotonic()
                self._answer(reply)
        if self._reader.has_data():
            self._received = time.monotonic()

    def _answer(self, reply: Any) -> None:  # noqa: ANN401 - any reply
        with self._state:
            if not self._asked:
                raise RedisConnectionError("Redis sent a reply without a request")
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
        """Mark the connection as lost and end all waits on it. The socket stays open until nobody uses it."""
        with self._state:
            self.lost = self.lost or why
            for bell in (*self._asked, *self._followers, *itertools.chain(*self._listeners.values())):
                bell.ring()
        with suppress(OSError):
            _shut_down(self._socket)


def _shut_down(connected: Any) -> None:  # noqa: ANN401 - a socket of Python, gevent or eventlet
    """Shut a socket down, by the method below TLS: ``SSLSocket.shutdown`` would change the object under its reader.

    A socket of eventlet is of no class that has one: its methods are attributes.
    """
    plain = [base for base in type(connected).__mro__ if not base.__module__.endswith("ssl")]
    method = next((vars(base)["shutdown"].__get__(connected) for base in plain if "shutdown" in vars(base)), None)
    (method or connected.shutdown)(socket.SHUT_RDWR)
