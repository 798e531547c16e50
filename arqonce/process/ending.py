"""Hears the signals that ask a process to end, and sees to it that it has ended within a bound.

In a thread, because the event loop may be what holds on: a handler that blocks it keeps it from hearing anything, and
one that swallows its cancellation, a thread that hangs, or a hook that never returns keep it from its end.
"""

import asyncio
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from signal import Signals
from types import FrameType

import structlog

from arqonce.process.log_writer import flush_log

ENDING = tuple(Signals[name] for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if name in Signals.__members__)
"""What supervisors and shells send to end a process, Ctrl-C, the end of a terminal, and Ctrl-\\."""

MARGIN = timedelta(seconds=10)
"""How long a process may take beyond its grace, whatever holds on; after a second signal, the half of it."""

HELD = 5
"""Exit code of a process that had to be ended because something held on to it for longer than that."""

_ECHO = timedelta(milliseconds=2)
"""The same signal so soon is the same order: ``timeout`` sends it to the process and then to its group."""

_LAST_LIMIT = timedelta(seconds=3)
"""How long the last measures may take before the process ends without them."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.ending")


def signals_to_hear() -> list[Signals]:
    """Return those that ask for the end: not SIGHUP where it was ignored at the start, as ``nohup`` does it."""
    return [number for number in ENDING if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]


class Orders:
    """Counts orders to end: the first means in order, the second at once. Several signals may be one order."""

    def __init__(self) -> None:
        """Nothing was ordered yet."""
        self._counts = {"signals": 0, "orders": 0}
        self._last: tuple[int, float] = (0, 0.0)

    @property
    def count(self) -> int:
        """How many orders there were: signals and a supervisor's orders count apart, because one may pass on both."""
        return max(self._counts.values())

    def hear(self, source: str, number: int) -> bool:
        """Take note of one of the ``signals`` or ``orders``; say whether that is one order more."""
        before, (last, at), now = self.count, self._last, time.monotonic()
        if source == "signals":
            self._last = number, now
            # Systemd (SendSIGHUP=) and shells send SIGHUP beside another signal, and terminals send it twice.
            is_echo = now - at < _ECHO.total_seconds() and last in {number, _HANGUP}
            if self._counts[source] and (is_echo or number == _HANGUP):
                return False
        self._counts[source] += 1
        return self.count > before


_HANGUP = getattr(signal, "SIGHUP", 0)


class Ending:
    """The end of this process: who asks for it, and the bound that it keeps.

    ``begin`` must be called in the main thread. What is ordered before ``obey`` says who obeys waits for it.
    """

    def __init__(self, grace: timedelta, *, pipe: int | None = None) -> None:
        """Do nothing yet. ``pipe`` is where a supervisor's orders come from: numbers of signals, or its end."""
        self._grace = grace
        self._pipe = pipe
        self._orders = Orders()
        self._heard: list[Signals] = []
        self._stop: Callable[[Signals], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadline: float | None = None
        self._before: int | None = None
        self._changing = threading.Lock()
        self._reader, self._writer = socket.socketpair()
        self._writer.settimeout(0)
        self.last_measures: Callable[[], None] = lambda: None
        """Called in a thread when the bound is passed, for three seconds at most, before the process ends."""

    @property
    def is_hearing(self) -> bool:
        """Whether signals come here: a KeyboardInterrupt is nobody's Ctrl-C then."""
        return self._loop is not None

    def begin(self) -> None:
        """Hear signals from now on, in place of all who did."""
        self._loop = asyncio.get_running_loop()
        for number in signals_to_hear():
            with suppress(NotImplementedError):  # Windows
                self._loop.remove_signal_handler(number)
            signal.signal(number, self._note)
        self.listen()
        threading.Thread(target=self._watch, name="ending", daemon=True).start()

    def obey(self, stop: Callable[[Signals], None]) -> None:
        """Call ``stop`` in the loop at the first order, and once more at the second."""
        with self._changing:
            self._stop, heard = stop, self._heard
        for number in heard:
            stop(number)

    def limit(self, patience: timedelta) -> None:
        """End the process if it lives for so long from now; an earlier bound stands."""
        with self._changing:
            deadline = time.monotonic() + patience.total_seconds()
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        with suppress(OSError):
            self._writer.send(b"\0")  # the thread looks at it

    def listen(self) -> bool:
        """Take signals from C's handler at once, whatever Python does; the loop gets them from us.

        Again when a loop begins to run, which takes them for itself: say whether that was so.
        """
        before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if before == self._writer.fileno():
            return False
        if before != -1:
            self._before = os.dup(before)  # the loop may close its own, and the number be another's then
        return True

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.listen():  # then C's handler has woken the loop, or nobody
            with suppress(OSError):
                self._writer.send(bytes([number]))

    def _watch(self) -> None:
        sources: list[int] = [self._reader.fileno()] + ([] if self._pipe is None else [self._pipe])
        while True:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                self._end()
            ready, _, _ = select.select(sources, [], [], left)
            if self._reader.fileno() in ready:
                self._take_signals(self._reader.recv(4096))
            if self._pipe in ready and not self._take_orders():
                sources.remove(self._pipe)

    def _take_signals(self, numbers: bytes) -> None:
        if self._before is not None and numbers.strip(b"\0"):
            with suppress(OSError):
                os.write(self._before, numbers)
        for number in numbers:
            if number in ENDING:
                self._hear("signals", Signals(number))

    def _take_orders(self) -> bool:
        """Read a supervisor's orders; say whether more may come."""
        assert self._pipe is not None  # noqa: S101 - it has something to read
        try:
            orders = os.read(self._pipe, 64)
        except ConnectionError:  # a supervisor that was killed without having read what we said
            orders = b""
        for number in orders:
            self._hear("orders", Signals(number))
        if not orders and not self._orders.count:
            self._hear("orders", Signals.SIGTERM)  # the supervisor was killed
        return bool(orders)

    def _hear(self, source: str, number: Signals) -> None:
        if not self._orders.hear(source, number) or self._orders.count > 2:  # noqa: PLR2004 - in order, and at once
            return
        self.limit(self._grace + MARGIN if self._orders.count == 1 else MARGIN / 2)
        with self._changing:
            self._heard.append(number)
            stop, loop = self._stop, self._loop
        if stop is not None and loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the bound ends the process
                loop.call_soon_threadsafe(stop, number)

    def _end(self) -> None:
        _log.error("the process does not end by itself: it is ended")
        thread = threading.Thread(target=self.last_measures, name="last-measures", daemon=True)
        with suppress(RuntimeError):  # the interpreter is at its end
            thread.start()
            thread.join(_LAST_LIMIT.total_seconds())
        leave(HELD)


def leave(code: int) -> None:
    """End the process now, with what was logged written, and nothing else done: no hook, no thread is waited for."""
    flush_log()
    os._exit(code)
