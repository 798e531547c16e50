"""Runs several worker processes under one command, for machines without a supervisor.

Owns the set of processes and how they end together; knows no job. Each process is a fork, which has loaded everything
and shares that memory, or the same command in a fresh interpreter. Has no event loop: it sleeps until a signal comes,
or until something is due.
"""

import math
import os
import select
import signal
import socket
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from arqonce.backoff import backoff
from arqonce.interruptions import were_told
from arqonce.operations.fleet import Watch
from arqonce.process.ending import ENDING, Orders, signals_to_hear
from arqonce.process.exit_codes import ExitCode
from arqonce.process.health import report_processes
from arqonce.process.health_file import process_file, remove_health
from arqonce.process.loop_watch import CURE
from arqonce.process.notify import Notifier
from arqonce.process.supervised import Supervised, order_to_stop, was_ready
from arqonce.settings.worker import WorkerSettings

_CLOSE_LIMIT = timedelta(seconds=15)
"""How long a process may run beyond its grace period before it is killed. It ends itself after 10 s (``ending``)."""

_LONG_LIFE = timedelta(minutes=1)
"""A process that lived this long resets the backoff when it ends: the next one starts within 0.5 s."""

_REPORT_EVERY = timedelta(seconds=5)
"""Interval of writing the health file; also the longest sleep."""

_ENDED_AS_TOLD = frozenset({0, 128 + signal.SIGINT, *(-number for number in ENDING)})
"""Exit codes of a process that was ordered to stop; all but 0 occur while it is still loading its modules."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.supervisor")


@dataclass
class _Place:
    """One of the ``count`` processes: the running one, or when the next one is due (``inf``: never)."""

    number: int
    due: float = 0.0
    started: float = 0.0
    ends: int = 0
    pid: int | None = None
    line: socket.socket | None = None
    """The supervisor's end of the socket to the process (``arqonce.process.supervised``)."""

    def hang_up(self) -> bool:
        """Close the line to a process that has ended; return whether it had ever been ready."""
        if self.line is None:
            return False
        line, self.line = self.line, None
        with line:
            return was_ready(line)


class Supervisor:
    """Keeps the processes of ``watch`` running until it is stopped or, with ``burst``, until all are done.

    They are forks, in each of which ``run`` returns. With a ``command`` they are that command instead, with the number
    of the process as its last argument and the socket of its orders as its standard input.

    Restarts a process that ends, after a growing pause (``backoff``) and for ever, because nothing else would. This
    includes crashes, kills, and exit code 4, which means an outage, because the servers were available when the
    supervisor started. Exit codes 2 and 3 (command line, settings) of a process that was never ready end all processes,
    because restarting does not help. From a process that was ready, a job has caused them. With ``burst``, exit code 4
    ends all as well, because the caller waits for the end.

    A process whose event loop stands still, as its board tells, is killed like one that crashed: its jobs' leases end.
    """

    def __init__(
        self,
        command: Sequence[str] | None,
        settings: WorkerSettings,
        watch: Watch,
        *,
        burst: bool,
        hang_limit: timedelta,
    ) -> None:
        """Start nothing yet. A process whose event loop stands still for ``hang_limit`` is killed, and restarted."""
        self._command = command
        self._watch = watch
        self._hang_limit = hang_limit.total_seconds()
        self._grace = settings.shutdown_grace
        self._health = settings.health_file
        self._burst = burst
        self._places = [_Place(number) for number in watch.numbers]
        self._signals: deque[int] = deque()
        self._handlers: dict[int, Any] = {}
        self._orders = Orders()
        self._is_stopping = False
        self._kill_at = math.inf
        self._code = 0
        self._notifier = Notifier.take()
        self._told_ready = False
        self._hopeless = {ExitCode.USAGE, ExitCode.SETTINGS} | ({ExitCode.UNAVAILABLE} if burst else set())

    def run(self) -> int | Supervised:
        """Supervise until the end; return the exit code, and in each process that it forks, what that process is.

        Tells systemd that it is ready when all processes are.

        The exit code is 0 if all processes ended with success, else the first other code; 1 if one had to be killed or
        crashed while stopping. Replaces the signal handlers and reaps all children of this process.
        """
        with self._hearing_signals() as wakeups:
            while self._is_needed():
                if (forked := self._start_due()) is not None:
                    return forked
                self._report()
                select.select([wakeups, *self._not_ready()], [], [], self._pause())
                with suppress(BlockingIOError):
                    wakeups.recv(4096)
                self._pass_signals_on()
                self._reap()
                self._kill_overdue()
                self._kill_hung()
        if self._health is not None:
            remove_health(self._health)
        _log.info("supervisor stopped", exit_code=self._code)
        return self._code

    @contextmanager
    def _hearing_signals(self) -> Iterator[socket.socket]:
        """Record signals, and yield a socket that each signal makes readable."""
        reader, writer = socket.socketpair()
        with reader, writer:
            reader.settimeout(0)
            writer.settimeout(0)
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
            for number in signals_to_hear():
                self._handlers[number] = signal.signal(number, lambda number, _frame: self._signals.append(number))
            if were_told():  # before, and the exception that was to end the process was lost
                self._signals.append(signal.SIGTERM)
                writer.send(b"\0")
            try:
                yield reader
            finally:
                signal.set_wakeup_fd(-1)

    def _is_needed(self) -> bool:
        return any(place.pid is not None or place.due < math.inf for place in self._places)

    def _pause(self) -> float:
        """Return the number of seconds until something is due."""
        due = min([self._kill_at, *(place.due for place in self._places if place.pid is None)])
        every = min(_REPORT_EVERY, self._notifier.every or _REPORT_EVERY)
        return max(0.0, min(due - time.monotonic(), every.total_seconds()))

    def _report(self) -> None:
        if self._health is not None:
            report_processes(self._health, len(self._places))
        alive = sum(place.line is not None for place in self._places)
        if not self._told_ready and alive == len(self._places) and not self._not_ready():
            self._told_ready = True
            self._notifier.ready()
        self._notifier.alive(f"{alive} of {len(self._places)} processes run")

    def _not_ready(self) -> list[socket.socket]:
        """Return the lines of processes that have not been ready, until all have been once."""
        lines = [] if self._told_ready else [place.line for place in self._places if place.line is not None]
        return [line for line in lines if not was_ready(line)]

    def _start_due(self) -> Supervised | None:
        """Start the processes that are due; return what this process is if it is one of them."""
        now = time.monotonic()
        for place in self._places:
            if place.pid is None and place.due <= now and (forked := self._start(place)) is not None:
                return forked
        return None

    def _start(self, place: _Place) -> Supervised | None:
        place.started = time.monotonic()
        try:
            place.line, its_end = socket.socketpair()
            with its_end:
                if self._command is not None:
                    pid = self._spawn(self._command, place, its_end)
                elif (pid := self._fork()) == 0:
                    return self._become(place, its_end)
        except OSError as error:  # no memory, too many processes or files: treated like a process that has ended
            place.hang_up()
            pause = self._put_off(place)
            _log.error("a process cannot be started", process=place.number, reason=error.strerror, pause_s=pause)
        else:
            place.pid = pid
            _log.info("process started", process=place.number, pid=pid)
        return None

    def _spawn(self, command: Sequence[str], place: _Place, its_end: socket.socket) -> int:
        return os.posix_spawnp(
            command[0],
            [*command, str(place.number)],
            os.environ | self._variables(place),
            file_actions=[(os.POSIX_SPAWN_DUP2, its_end.fileno(), 0)],
            setsigdef=[signal.SIGPIPE],  # Python ignores it, and programs that are no Python should not
        )

    def _fork(self) -> int:
        """Fork. In the child, signals are handled as they were before the supervisor ran, and none is lost."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers)
        try:
            with warnings.catch_warnings():  # since Python 3.12: of the log's thread, which holds no lock for long
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handlers)
        return pid

    def _become(self, place: _Place, its_end: socket.socket) -> Supervised:
        """Be this process. Keeps no line of the supervisor: its end of file says that the supervisor was killed."""
        for one in self._places:
            one.hang_up()
        os.environ |= self._variables(place)
        return Supervised(number=place.number, orders=its_end.detach())

    def _variables(self, place: _Place) -> dict[str, str]:
        health = {} if self._health is None else {"WORKER_HEALTH_FILE": str(process_file(self._health, place.number))}
        return health | self._watch.variables(place.number)

    def _put_off(self, place: _Place) -> float:
        """Schedule the next start after a pause; return the pause in seconds."""
        lived = time.monotonic() - place.started
        place.ends = 1 if lived >= _LONG_LIFE.total_seconds() else place.ends + 1
        pause = backoff(place.ends).total_seconds()
        place.due = time.monotonic() + pause
        return round(pause, 3)

    def _pass_signals_on(self) -> None:
        while self._signals:
            number = signal.Signals(self._signals.popleft())
            if not self._orders.hear("signals", number):
                continue
            _log.info("supervisor told to stop", signal=number.name, again=self._is_stopping)
            self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        """Order all processes to stop, start no more, and schedule killing those left; a second call kills sooner."""
        patience = _CLOSE_LIMIT if self._is_stopping else self._grace + _CLOSE_LIMIT
        self._notifier.stopping(patience)
        self._kill_at = min(self._kill_at, time.monotonic() + patience.total_seconds())
        self._is_stopping = True
        for place in self._places:
            place.due = math.inf
            if place.line is not None:
                order_to_stop(place.line, number)

    def _kill_overdue(self) -> None:
        if time.monotonic() < self._kill_at:
            return
        self._kill_at = math.inf
        for place in self._places:
            if place.pid is not None:
                _log.error("killing a process that does not end", process=place.number, pid=place.pid)
                os.kill(place.pid, signal.SIGKILL)  # it was not reaped, so its PID is not reused

    def _kill_hung(self) -> None:
        """Kill processes whose event loop stands still, and log where it does. Not while all end: that has a limit."""
        self._watch.look()
        for place in () if self._is_stopping else self._places:
            silence = self._watch.silence(place.number)
            if place.pid is None or silence < self._hang_limit:
                continue
            os.kill(place.pid, signal.SIGUSR2)
            _log.error(
                "killing a process that hangs: its event loop stands still",
                process=place.number,
                pid=place.pid,
                silent_s=round(silence),
                stacks=self._watch.note_hung(place.number),
                cure=CURE,
            )
            os.kill(place.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Reap all processes that have ended. As PID 1, these may include processes that are not ours."""
        ours = {place.pid: place for place in self._places if place.pid is not None}
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if place := ours.get(found[0]):
                    self._vacate(place, os.waitstatus_to_exitcode(found[1]))

    def _vacate(self, place: _Place, code: int) -> None:
        pid, place.pid = place.pid, None
        self._watch.end(place.number)
        had_been_ready = place.hang_up()
        if self._health is not None:
            remove_health(process_file(self._health, place.number))  # a killed worker leaves it
        self._decide(place, code, was_ready=had_been_ready, pid=pid, **_ending(code))

    def _decide(self, place: _Place, code: int, *, was_ready: bool, **facts: object) -> None:
        """Log the end of a process and decide what follows: restart it, end all, or nothing."""
        log = _log.bind(process=place.number, **facts)
        if self._is_stopping:
            if code not in _ENDED_AS_TOLD:
                self._code = self._code or max(code, int(ExitCode.FAILED))
            log.info("process ended")
        elif code in self._hopeless and not was_ready:
            self._code = code
            log.error("process ended: no restart cures it, so all end")
            self._stop(signal.SIGTERM)
        elif self._burst and code == ExitCode.OK:
            place.due = math.inf
            log.info("process ended")
        else:
            self._watch.restart(place.number, code)
            log.warning("process ended: it is started again", pause_s=self._put_off(place))


def _ending(code: int) -> dict[str, object]:
    if code >= 0:
        return {"exit_code": code}
    with suppress(ValueError):  # a real-time signal has no name
        return {"signal": signal.Signals(-code).name}
    return {"signal": -code}
