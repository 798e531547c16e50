"""Starts our ``python -m ...`` programs by forking a warm template, which has already loaded their modules.

The fork is a separate process with its own session, environment, folder, output and signals, and it ends like an
interpreter. It differs from a started Python only in its loaded modules and its parent. So ``worker_process`` starts
Python itself if the environment would change the interpreter, or if the platform cannot fork safely. This module can be
imported there, too.
"""

import json
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Protocol, TypeAlias

from arqonce.commands.listed import MODULES
from arqonce.testing.crash.orders import Program

WARM: dict[str, tuple[str, ...]] = {
    "arqonce": ("arqonce.commands.app", *MODULES),
    "arq": ("arq.cli", "arqonce.process.plain"),
}
"""The programs that can be forked, by the module after ``-m``, and the modules that the template loads for each.

A project adds its own command here.
"""

_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "TZ")
"""Prefixes of variables that the interpreter, or a library linked with it, reads only at its start."""

_HOOKS = ("sitecustomize.py", "usercustomize.py")
"""Modules that an interpreter runs at its start if it finds them."""

_FORK_LIMIT = timedelta(seconds=30)
"""How long the template may take to load a program's modules and fork, on a busy machine."""

_SLICE = timedelta(milliseconds=20)
"""How long one thread waits for reports before another thread may."""


class Process(Protocol):
    """The methods and attributes of ``subprocess.Popen`` that tests use."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def returncode(self) -> int | None:
        """The exit code that ``poll`` or ``wait`` has found; negative for a signal."""
        ...

    def poll(self) -> int | None:
        """Return the exit code; ``None`` while the process runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end; return the exit code."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal; do nothing if the process has ended."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


class ProgramProcess:
    """A process that the template has forked."""

    def __init__(self, programs: "Programs", arguments: Sequence[str]) -> None:
        """Begin without pid and exit code."""
        self.args = [sys.executable, "-m", *arguments]
        self.pid = 0
        self.returncode: int | None = None
        self._programs = programs

    def poll(self) -> int | None:
        """Return the exit code; ``None`` while the process runs."""
        if self.returncode is None:
            self._programs.hear(timedelta(0))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end; return the exit code. ``timeout`` is in seconds.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if limit is not None and time.monotonic() > limit:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._programs.hear(_SLICE)
        assert self.returncode is not None  # noqa: S101 - the loop has ended
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal; do nothing if the process has ended."""
        if self.poll() is None:
            try:
                os.kill(self.pid, sig)
            except ProcessLookupError:  # it has just ended
                return

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


Finished: TypeAlias = "subprocess.CompletedProcess[str]"


class Programs:
    """The template, started when it is first needed, and the programs forked from it."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._template: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._rest = b""
        self._processes: dict[int, ProgramProcess] = {}

    def close(self) -> None:
        """End the template and its programs."""
        if self._template is not None:
            self._template.communicate(timeout=10)

    def start(  # noqa: PLR0913 - what a process may depend on
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
        directory: Path | None = None,
        warnings: Sequence[str] = (),
        loads: Sequence[str] | None = None,
    ) -> ProgramProcess:
        """Run ``python -m module``. It appends its output to ``output`` and its errors to ``errors``, or to ``output``.

        For a module that is not in ``WARM``, pass the modules that the template ``loads`` for it.

        Raises:
            ForkError: it could not be forked.
        """
        sys.audit("arqonce.testing.start", module, arguments)
        process = ProgramProcess(self, [module, *arguments])
        for file in (output, errors or output):
            file.touch()  # so that it can be read at once
        with self._lock:
            number = len(self._processes) + 1
            self._processes[number] = process
            order = Program(
                fork=number,
                module=module,
                loads=WARM[module] if loads is None else tuple(loads),
                arguments=arguments,
                warnings=tuple(warnings),
                environment=dict(environment),
                directory=Path.cwd() if directory is None else directory,
                output=output,
                errors=errors or output,
            )
            self._send(order)
        limit = time.monotonic() + _FORK_LIMIT.total_seconds()
        while process.pid == 0:
            if process.returncode is not None or time.monotonic() > limit:
                from arqonce.testing.crash.forks import ForkError  # noqa: PLC0415 - see the module's docstring

                raise ForkError(f"python -m {module} could not be forked: see the standard error of the tests")
            self.hear(_SLICE)
        return process

    def run(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        directory: Path | None = None,
        timeout: float = 60.0,
        loads: Sequence[str] | None = None,
    ) -> Finished:
        """Run ``python -m module`` to the end; return its exit code and output. ``timeout`` is in seconds.

        Raises:
            subprocess.TimeoutExpired: it had not ended by then and was killed.
        """
        with TemporaryDirectory() as folder:
            output, errors = Path(folder, "output"), Path(folder, "errors")
            process = self.start(
                module,
                *arguments,
                environment=environment,
                directory=directory,
                output=output,
                errors=errors,
                loads=loads,
            )
            try:
                code = process.wait(timeout)
            finally:
                process.kill()
            return subprocess.CompletedProcess(process.args, code, output.read_text(), errors.read_text())

    def hear(self, patience: timedelta) -> None:
        """Process pending reports of the template; if there are none, wait at most ``patience`` for the next one."""
        with self._lock:
            assert self._template is not None  # noqa: S101 - it has forked the caller's process
            assert self._template.stdout is not None  # noqa: S101 - it is a pipe
            if not select.select([self._template.stdout], [], [], patience.total_seconds())[0]:
                return
            heard = os.read(self._template.stdout.fileno(), 65536)
            *lines, self._rest = (self._rest + heard).split(b"\n")
            for report in map(json.loads, lines):
                self._take(report)
            if not heard:
                for process in self._processes.values():
                    process.returncode = -signal.SIGKILL if process.returncode is None else process.returncode

    def _take(self, report: dict[str, Any]) -> None:
        process = self._processes[report["fork"]]
        if report["event"] == "started":
            process.pid = report["pid"]
        elif report["event"] == "exit":
            process.returncode = report["code"]
        elif report["event"] == "refused":
            process.returncode = 1

    def _send(self, order: Program) -> None:
        if self._template is None:
            from arqonce.testing.crash.forks import start_template  # noqa: PLC0415 - see the module's docstring

            self._template = start_template({"PYTHONPATH": str(Path(__file__).parents[2])})
        assert self._template.stdin is not None  # noqa: S101 - it is a pipe
        self._template.stdin.write(pickle.dumps(order))
        self._template.stdin.flush()


def warm_command(command: Sequence[str], environment: Mapping[str, str]) -> Sequence[str] | None:
    """Return module and arguments if the template can run this command in this environment as Python would."""
    if sys.platform != "linux":
        return None
    script = Path(sys.executable).parent / "arq"
    given = [sys.executable, "-m", "arq", *command[1:]] if command[0] == str(script) else list(command)
    if given[:2] != [sys.executable, "-m"] or given[2] not in WARM:
        return None
    return given[2:] if _is_same_interpreter(environment) else None


def interpreter_variables() -> dict[str, str]:
    """Return the variables that a process's environment must contain unchanged for the template to run it."""
    return _at_start(os.environ)


def _is_same_interpreter(environment: Mapping[str, str]) -> bool:
    folders = environment.get("PYTHONPATH", "").split(os.pathsep)
    if any(Path(folder, hook).is_file() for folder in folders for hook in _HOOKS):
        return False
    return _at_start(environment) == interpreter_variables()


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_INTERPRETER) and name != "PYTHONPATH"  # the fork applies that itself
    }
