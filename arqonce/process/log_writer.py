"""Writes log lines in a thread, so that logging never waits for the reader of standard error.

A pipe that is not read buffers 64 KiB. Then the next write blocks, and with it the event loop, its jobs, their leases
and the end of the process. Here lines are queued in memory, in order and within limits. When these are reached, the
least important lines are dropped. As soon as writing succeeds again, a line reports how many.
"""

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import TextIO
from weakref import WeakSet

MOST_LINES = 10_000
"""Most lines in the queue: what a busy worker logs in some seconds."""

MOST_BYTES = 4 << 20
"""Most bytes in the queue. A line of more than a quarter of that is truncated."""

FLUSH_LIMIT = timedelta(seconds=1)
"""How long the end of the process waits until the last lines are written."""

_ATOMIC = 4096
"""Largest write to a pipe that is atomic: not interleaved with other processes' (Linux, ``pipe(7)``: PIPE_BUF)."""

_REST = timedelta(milliseconds=5)
"""Pause after a write of few lines: under load, waking the thread for each line costs more than the line."""

_FEW = 8
"""From this many lines in one write there is no pause, because many more are queued."""

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)

CURE = "standard error did not take them in time: see to it that its reader reads, and is fast enough"

_LOST = "%d lines of the log were left out: %s"

_log = logging.getLogger("arqonce.process.log_writer")
_writers: "WeakSet[LogWriter]" = WeakSet()


class LogWriter(logging.Handler):
    """A handler that queues each line for a thread, which writes it to a file descriptor.

    Without a descriptor (standard error was closed when the process started) lines are discarded. Lines that cannot be
    written (the pipe has no reader, the disk is full) count as dropped. After a fork the child has its own thread, and
    none of its parent's lines.
    """

    def __init__(self, descriptor: int | None) -> None:
        """Initialize the queue. The thread starts with the first line."""
        super().__init__()
        self._descriptor = descriptor
        self.begin()
        _writers.add(self)

    def begin(self) -> None:
        """Discard all lines and the thread, which after a fork are the parent's."""
        # Reentrant: the garbage collector may run while we hold the lock, and log what it destroys.
        self._changing = threading.RLock()
        self._written = threading.Condition(self._changing)
        self._wake = threading.Event()
        self._is_asleep = True
        self._has_thread = False
        self._lines: dict[int, deque[tuple[int, bytes]]] = {level: deque() for level in _LEVELS}
        self._numbers = count()
        self._size = self._bytes = self._lost = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Format the record in the calling thread, and queue the line. Never wait for the descriptor."""
        # Without logging's lock: it would protect nothing, and a fork would have to wait for it.
        passes = self.filter(record)
        if passes:
            self.emit(passes if isinstance(passes, logging.LogRecord) else record)
        return bool(passes)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line."""
        if self._descriptor is None:
            return
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - as in every logging handler: a formatting error must not reach the caller
            self.handleError(record)
            return
        self._queue(record.levelno, line[: MOST_BYTES // 4] + b"\n")

    def _queue(self, number: int, line: bytes) -> None:
        level = max((level for level in _LEVELS if level <= number), default=logging.DEBUG)
        with self._changing:
            if self._is_full(line) and not self._make_room(level, line):
                self._lost += 1
                return
            self._lines[level].append((next(self._numbers), line))
            self._size += 1
            self._bytes += len(line)
            if self._is_asleep:
                self._wake_up()

    def _is_full(self, line: bytes) -> bool:
        return self._size >= MOST_LINES or self._bytes + len(line) > MOST_BYTES

    def _make_room(self, level: int, line: bytes) -> bool:
        """Drop the newest of the less important queued lines; return whether there is room now."""
        for lower in _LEVELS:
            waiting = self._lines[lower]
            while lower < level and waiting and self._is_full(line):
                self._size -= 1
                self._bytes -= len(waiting.pop()[1])
                self._lost += 1
        return not self._is_full(line)

    def _wake_up(self) -> None:
        self._is_asleep = False
        self._wake.set()
        if self._has_thread:
            return
        try:
            # A daemon: it may block in its write for ever, and must not delay the end of the process.
            threading.Thread(target=self._write_forever, name="log-writer", daemon=True).start()
            self._has_thread = True
        except RuntimeError:  # too many threads, or the interpreter is shutting down: the next line tries again
            self._is_asleep = True

    def _write_forever(self) -> None:
        while True:
            with self._changing:
                lines = self._take()
                if not lines:
                    self._is_asleep = True
                    self._wake.clear()
                    self._written.notify_all()
            if not lines:
                self._wake.wait()
            elif self._write(b"".join(lines), len(lines)):
                self._tell_lost()
                if len(lines) < _FEW:
                    time.sleep(_REST.total_seconds())

    def _take(self) -> list[bytes]:
        """Remove and return the oldest lines, as many as fit into one atomic write, and at least one."""
        taken: list[bytes] = []
        size = 0
        while self._size:
            oldest = min((lines for lines in self._lines.values() if lines), key=_first)
            line = oldest[0][1]
            if taken and size + len(line) > _ATOMIC:
                break
            oldest.popleft()
            taken.append(line)
            size += len(line)
            self._size -= 1
        self._bytes -= size
        return taken

    def _write(self, chunk: bytes, lines: int) -> bool:
        assert self._descriptor is not None  # noqa: S101 - otherwise nothing is queued
        while chunk:
            try:
                chunk = chunk[os.write(self._descriptor, chunk) :]
            except BlockingIOError:  # a process that shares the descriptor has made it non-blocking
                select.select([], [self._descriptor], [], 1)
            except OSError:
                with self._changing:
                    self._lost += lines
                return False
        return True

    def _tell_lost(self) -> None:
        with self._changing:
            if self._size:
                return
            lost, self._lost = self._lost, 0
        if lost:
            record = _log.makeRecord(_log.name, logging.WARNING, __file__, 0, _LOST, (lost, CURE), None)
            self.emit(record)

    def flush(self) -> None:
        """Wait until all lines are written, at most a second."""
        with self._changing:
            self._written.wait_for(lambda: self._is_asleep, FLUSH_LIMIT.total_seconds())


def _first(lines: deque[tuple[int, bytes]]) -> int:
    return lines[0][0]


def _begin_anew() -> None:
    for writer in list(_writers):
        writer.begin()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_begin_anew)


def standard_error() -> int | None:
    """Return the file descriptor of standard error; ``None`` if it was closed when the process started."""
    stream: TextIO | None = sys.stderr
    if stream is None:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):  # replaced by an object without a descriptor, as in tests
        return 2


def flush_log() -> None:
    """Wait until all log lines are written, at most a second. For processes that end without Python's finalization."""
    for writer in list(_writers):
        writer.flush()


def say(line: str) -> None:
    """Write a line for people to standard error, after pending log lines. Wait at most a second for its reader."""
    flush_log()
    if standard_error() is None:
        return
    # In another thread, and not through the stream's buffer, for whose lock Python's finalization would wait.
    thread = threading.Thread(target=_write_line, args=(line,), name="last-line", daemon=True)
    thread.start()
    thread.join(FLUSH_LIMIT.total_seconds())


def _write_line(line: str) -> None:
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # replaced by an object without a descriptor, as in tests
        print(line, file=sys.stderr)  # noqa: T201 - for people
    else:
        with suppress(OSError):  # it has no reader
            os.write(descriptor, f"{line}\n".encode("utf-8", "backslashreplace"))
