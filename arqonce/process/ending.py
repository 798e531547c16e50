"""Handles the signals that ask a process to end, and ends it within a time limit. Reports both to systemd.

Works in a thread, because the event loop itself may prevent the end: a handler that blocks it keeps it from receiving
signals; a handler that swallows its cancellation, a hanging thread or a hook that never returns keeps it running.
"""

import asyncio
import math
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

from arqonce.interruptions import were_told
from arqonce.process.exit_codes import ExitCode
from arqonce.process.log_writer import flush_log
from arqonce.process.notify import Notifier

ENDING = tuple(Signals[name] for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if name in Signals.__members__)
"""Signals of supervisors and shells, of Ctrl-C, of a closed terminal, and of Ctrl-\\."""

MARGIN = timedelta(seconds=10)
"""How long a process may run beyond its grace period before it is ended; half as long after a second signal."""

HELD = ExitCode.HELD
"""Exit code of a process that had to be ended because something held it for longer than that."""

_ECHO = timedelta(milliseconds=2)
"""The same signal within this time is the same order: ``timeout`` sends it to the process and then to its group."""

_LAST_LIMIT = timedelta(seconds=3)
"""How long the last measures may take before the process ends anyway."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.ending")


def signals_to_hear() -> list[Signals]:
    """Return the signals that ask for the end, without SIGHUP if it is ignored, as ``nohup`` sets it."""
    return [number for number in ENDING if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]


class Orders:
    """Counts orders to end: the first requests an orderly end, the second an immediate one.

    Several signals may be one order.
    """

    def __init__(self) -> None:
        """Begin without orders."""
        self._counts = {"signals": 0, "orders": 0}
        self._last: tuple[int, float] = (0, 0.0)

    @property
    def count(self) -> int:
        """The number of orders. Signals and a supervisor's orders count separately: both may have the same cause."""
        return max(self._counts.values())

    def hear(self, source: str, number: int) -> bool:
        """Count a signal from ``source``, ``signals`` or ``orders``; return whether it is a further order."""
        before, (last, at), now = self.count, self._last, time.monotonic()
        if source == "signals":
            self._last = number, now
            # Systemd (SendSIGHUP=) and shells send SIGHUP together with another signal, and terminals send it twice.
            is_echo = now - at < _ECHO.total_seconds() and last in {number, _HANGUP}
            if self._counts[source] and (is_echo or number == _HANGUP):
                return False
        self._counts[source] += 1
        return self.count > before


_HANGUP = getattr(signal, "SIGHUP", 0)


class Ending:
    """Receives orders to end this process, and enforces the time limit of its end.

    ``begin`` must be called in the main thread. Orders that arrive before ``obey`` is called wait for it.
    """

    def __init__(self, grace: timedelta, *, pipe: int | None = None) -> None:
        """Do nothing yet. A supervisor sends orders through ``pipe``: signal numbers, or end of file."""
        self._grace = grace
        self._pipe = pipe
        self._orders = Orders()
        self._heard: list[Signals] = []
        self._stop: Callable[[Signals], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadline: float | None = None
        self._before: int | None = None
        self._changing = threading.Lock()
        self._is_fork = False
        self._notifier = Notifier.take()
        self._status: Callable[[], str] | None = None
        self._report_at = math.inf
        self._is_asked = False
        self._reader, self._writer = socket.socketpair()
        self._writer.settimeout(0)
        self.last_measures: Callable[[], None] = lambda: None
        """Called in a thread at the time limit, before the process ends. May take three seconds."""

    @property
    def is_hearing(self) -> bool:
        """Whether this handles signals. Then a KeyboardInterrupt does not come from Ctrl-C."""
        return self._loop is not None

    def begin(self) -> None:
        """Handle signals from now on, in place of earlier handlers."""
        self._loop = asyncio.get_running_loop()
        for number in signals_to_hear():
            with suppress(NotImplementedError):  # Windows
                self._loop.remove_signal_handler(number)
            signal.signal(number, self._note)
        self.listen()
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=self._be_deaf)
        threading.Thread(target=self._watch, name="ending", daemon=True).start()
        if were_told():  # before, and the exception that was to end the process was lost
            self._hear("signals", Signals.SIGTERM)

    def obey(self, stop: Callable[[Signals], None]) -> None:
        """Call ``stop`` in the event loop at the first order, and again at the second."""
        with self._changing:
            self._stop, heard = stop, self._heard
        for number in heard:
            stop(number)

    def told_to_stop(self) -> asyncio.Event:
        """Return an event that the first order sets. The second one ends the process at once."""
        told = asyncio.Event()

        def stop(number: Signals) -> None:
            if told.is_set():
                _log.info("told to stop at once", signal=number.name)
                leave(0)
            told.set()

        self.obey(stop)
        return told

    def ready(self, status: Callable[[], str]) -> None:
        """Report to systemd that the start is complete, and from now on, again and again, that the event loop turns.

        ``status`` is called in the event loop, and returns a line for people.
        """
        self._notifier.ready()
        if self._notifier.every is not None:
            self._status, self._report_at = status, time.monotonic()
            self._wake()

    def limit(self, patience: timedelta) -> None:
        """End the process after ``patience`` from now, unless an earlier limit is set."""
        with self._changing:
            deadline = time.monotonic() + patience.total_seconds()
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):
            self._writer.send(b"\0")  # makes the thread read the new times

    def listen(self) -> bool:
        """Receive signals directly from the C-level handler, whatever Python executes, and pass them on to the loop.

        An event loop that starts redirects them, so call this again then. Returns whether they had been redirected.
        """
        before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if before == self._writer.fileno():
            return False
        if before != -1:
            self._before = os.dup(before)  # the loop may close its descriptor, and the number may be reused
        return True

    def _be_deaf(self) -> None:
        """Pass nothing on in a process that a job has forked: a signal to it is no order to us, whose socket it has.

        It ignores these signals, so that those to a whole group leave it to the jobs that may still end.
        """
        self._is_fork = True
        signal.set_wakeup_fd(-1)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._is_fork:
            return
        if self.listen():  # the C-level handler has not written to our socket
            with suppress(OSError):
                self._writer.send(bytes([number]))

    def _watch(self) -> None:
        sources: list[int] = [self._reader.fileno()] + ([] if self._pipe is None else [self._pipe])
        while True:
            now = time.monotonic()
            if self._deadline is not None and self._deadline <= now:
                self._end()
            if self._report_at <= now:
                self._report(now)
            due = min(self._report_at, math.inf if self._deadline is None else self._deadline)
            ready, _, _ = select.select(sources, [], [], None if due == math.inf else due - now)
            if self._reader.fileno() in ready:
                self._take_signals(self._reader.recv(4096))
            if self._pipe in ready and not self._take_orders():
                sources.remove(self._pipe)

    def _report(self, now: float) -> None:
        """Let the event loop report that it turns: one that hangs reports nothing."""
        every, loop = self._notifier.every, self._loop
        assert every is not None and loop is not None  # noqa: S101, PT018 - else none is due
        self._report_at = now + every.total_seconds()
        if not self._is_asked:
            self._is_asked = True
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._tell_alive)

    def _tell_alive(self) -> None:
        self._is_asked = False
        if self._status is not None:
            self._notifier.alive(self._status())

    def _take_signals(self, numbers: bytes) -> None:
        if self._before is not None and numbers.strip(b"\0"):
            with suppress(OSError):
                os.write(self._before, numbers)
        for number in numbers:
            if number in ENDING:
                self._hear("signals", Signals(number))

    def _take_orders(self) -> bool:
        """Read a supervisor's orders; return whether more may come."""
        assert self._pipe is not None  # noqa: S101 - it is readable
        try:
            orders = os.read(self._pipe, 64)
        except ConnectionError:  # the supervisor was killed before it read what we sent
            orders = b""
        for number in orders:
            self._hear("orders", Signals(number))
        if not orders and not self._orders.count:
            self._hear("orders", Signals.SIGTERM)  # the supervisor was killed
        return bool(orders)

    def _hear(self, source: str, number: Signals) -> None:
        if not self._orders.hear(source, number) or self._orders.count > 2:  # noqa: PLR2004 - orderly, and immediate
            return
        patience = self._grace + MARGIN if self._orders.count == 1 else MARGIN / 2
        self.limit(patience)
        self._notifier.stopping(patience)
        with self._changing:
            self._heard.append(number)
            stop, loop = self._stop, self._loop
        if stop is not None and loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the time limit ends the process
                loop.call_soon_threadsafe(stop, number)

    def _end(self) -> None:
        _log.error("the process does not end by itself: it is ended")
        thread = threading.Thread(target=self.last_measures, name="last-measures", daemon=True)
        with suppress(RuntimeError):  # the interpreter is shutting down
            thread.start()
            thread.join(_LAST_LIMIT.total_seconds())
        leave(HELD)


def leave(code: int) -> None:
    """Write pending log lines, then end the process at once, without running exit hooks or waiting for threads."""
    flush_log()
    os._exit(code)
