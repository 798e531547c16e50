"""A process that has loaded everything and forks a worker for each order: a start costs milliseconds, not a second.

Reads orders as pickles from standard input, sent by the test process that started it, and writes reports as lines of
JSON to standard output. It has one thread and no event loop, so that a fork is safe. It ends at the end of its input,
and its workers end with it.
"""

import atexit
import gc
import importlib
import importlib.util
import json
import os
import pickle
import runpy
import signal
import sys
import threading
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy.dialects.postgresql.asyncpg  # noqa: F401 - loaded before the fork
import uvloop  # noqa: F401 - loaded before the fork
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import configure_mappers

from arqonce.application import Application
from arqonce.embedded.process import die_with
from arqonce.process.worker import run_worker
from arqonce.testing.crash.orders import Program, Start, Tell, Work
from arqonce.testing.crash.points import Points, PointsObserver

_REAPING = (signal.SIGCHLD, signal.SIGALRM)
"""Signals at which the template reaps processes. One that arrives just before a read waits for the next order."""

_LATEST = 0.2
"""Interval in seconds after which an end is reported nevertheless."""


class _BecomeError(BaseException):
    """Unwinds the template's frames in a child that is to run a program."""

    def __init__(self, program: Program) -> None:
        self.program = program


class Template:
    """Executes orders until the end of input."""

    def __init__(self) -> None:
        """Reserve standard output for reports, so that what a handler prints does not mix with them."""
        self._output = os.dup(1)
        os.dup2(2, 1)
        self._pids: dict[int, int] = {}

    def obey(self) -> None:
        """Execute orders to the end of input, then kill the processes that still run."""
        for number in _REAPING:
            signal.signal(number, lambda *_: self._reap())
        signal.setitimer(signal.ITIMER_REAL, _LATEST, _LATEST)
        while True:
            try:
                order = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started us
            except EOFError:
                break
            if isinstance(order, Start):
                self._start(order)
            elif isinstance(order, Program):
                self._start_program(order)
            else:
                self._tell(order)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)

    def _start(self, order: Start) -> None:
        try:
            work = read_work(order)
        except Exception as error:  # noqa: BLE001 - reported to the sender of the order
            self._report(order.fork, {"event": "refused", "reason": f"{type(error).__name__}: {error}"})
            return
        if self._fork(order.fork) == 0:
            self._work(order, work)

    def _start_program(self, order: Program) -> None:
        try:
            _load_once(order.loads)
        except Exception as error:  # noqa: BLE001 - reported to the sender of the order
            self._report(order.fork, {"event": "refused", "reason": f"{type(error).__name__}: {error}"})
            return
        if self._fork(order.fork) == 0:
            os.close(self._output)
            raise _BecomeError(order)

    def _fork(self, number: int) -> int:
        """Fork and report the pid. Return 0 in the child, whose signal handlers are reset."""
        owner, ask_kernel = os.getpid(), die_with(os.getpid(), signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _REAPING)  # so that the pid is stored before the child is reaped
        pid = os.fork()
        if pid == 0:
            assert owner != os.getpid()  # noqa: S101 - the child
            if ask_kernel is not None:
                ask_kernel()
            for ours in _REAPING:  # the timer is not inherited
                signal.signal(ours, signal.SIG_DFL)
        else:
            self._pids[pid] = number
            self._report(number, {"event": "started", "pid": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _REAPING)
        return pid

    def _work(self, order: Start, work: Work) -> None:
        """Run a worker, and never return."""
        code = 1
        try:
            _redirect(order.log, order.log, order.directory)
            points = Points(lambda told: self._report(order.fork, told), order.crash_at)
            if work.prepare is not None:
                work.prepare()
            run_worker(
                order.settings,
                Application(name="crash-points", registry=work.registry),
                observer=PointsObserver(points, stands_by=order.stands_by),
            )
            code = 0
        except BaseException as error:  # noqa: BLE001 - this process ends here after any error
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _tell(self, order: Tell) -> None:
        for pid, fork in list(self._pids.items()):
            if fork == order.fork:
                os.kill(pid, order.signal)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                self._report(self._pids.pop(pid), {"event": "exit", "code": os.waitstatus_to_exitcode(status)})

    def _report(self, fork: int, told: dict[str, Any]) -> None:
        # A write of less than PIPE_BUF bytes is never interleaved with another process's.
        os.write(self._output, (json.dumps(told | {"fork": fork})[:4000] + "\n").encode())


def read_work(order: Start) -> Work:
    """Load the modules that the order names; those that cannot be found by name are loaded from their files."""
    for name, file in order.modules.items():
        _load(name, file)
    work = pickle.loads(order.work)  # noqa: S301 - from the process that started us
    assert isinstance(work, Work)  # noqa: S101 - our own pickle
    return work


def _load(name: str, file: str) -> None:
    if name in sys.modules:
        return
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


def _load_once(names: Iterable[str]) -> None:
    if new := [name for name in names if name not in sys.modules]:
        for name in new:
            importlib.import_module(name)
        _freeze()


def _freeze() -> None:
    """Freeze all objects, so that garbage collections in children do not copy every page."""
    gc.collect()
    gc.freeze()


def _redirect(output: Path, errors: Path, directory: Path) -> None:
    """Redirect all output to files, and change to ``directory``, where files count as effects."""
    for name, flags, target in (
        (os.devnull, os.O_RDONLY, 0),
        (output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1),
        (errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 2),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)
    os.chdir(directory)


def _become(program: Program) -> None:
    """Run the program, with everything that a fresh interpreter would have."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _redirect(program.output, program.errors, program.directory)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the old one may have buffered orders
    os.environ.clear()
    os.environ.update(program.environment)
    first = [os.getcwd(), *filter(None, program.environment.get("PYTHONPATH", "").split(os.pathsep))]  # noqa: PTH109
    sys.path[:] = [*first, *(folder for folder in sys.path if folder and folder not in first)]
    importlib.invalidate_caches()
    sys.argv[:] = [program.module, *program.arguments]
    sys.orig_argv[:] = [sys.executable, "-m", program.module, *program.arguments]
    sys.warnoptions.extend(program.warnings)
    warnings._processoptions(program.warnings)  # type: ignore[attr-defined] # noqa: SLF001 - as Python does with -W
    try:
        runpy.run_module(program.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if program.warnings or not isinstance(end.code, int | None):
            raise
        _end(end.code or 0)
    if not program.warnings:
        _end(0)


def _end(code: int) -> None:
    """End the process as an interpreter does, without taking apart its modules: that copies every page of them."""
    threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as Py_FinalizeEx does first
    atexit._run_exitfuncs()  # noqa: SLF001 - as Py_FinalizeEx does next
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def main() -> None:
    """Load everything, then execute orders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test process handles Ctrl-C
    configure_mappers()
    create_async_engine("postgresql+asyncpg://localhost/none")  # fills SQLAlchemy's caches
    _freeze()
    try:
        Template().obey()
    except _BecomeError as child:
        program = child.program
    else:
        return
    _become(program)  # outside of the except block, so that it ends like an interpreter
