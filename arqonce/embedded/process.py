"""Child processes that do not outlive us, and the stopping of those that did. Knows no particular program."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO

from arqonce.embedded.errors import EmbeddedServerError

StopSteps = Sequence[tuple[signal.Signals, timedelta]]
"""Signals, from gentle to forceful, each with how long to wait for the end; SIGKILL follows the last."""

_POLL = timedelta(milliseconds=5)
"""Interval of checks whether a process that is not our child has ended."""

_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
"""A child's whole environment: it inherits nothing from the caller's shell (PGPORT, LC_ALL, secrets)."""

_PR_SET_PDEATHSIG = 1
"""``prctl(2)``: the signal that a child gets when the thread that forked it ends."""


def start_process(
    command: Sequence[str | Path],
    *,
    account: pwd.struct_passwd | None,
    output: int | IO[bytes],
    death_signal: signal.Signals,
) -> subprocess.Popen[bytes]:
    """Start a child as the account, or as the current user. On Linux it gets ``death_signal`` when this *thread* ends.

    Raises:
        EmbeddedServerError: the program is not for this platform, or we lack the privilege to run it as the account.
    """
    try:
        return subprocess.Popen(  # noqa: S603  our own commands, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",  # the account may not be able to enter ours
            env=_ENVIRONMENT,
            umask=0o077,
            start_new_session=True,  # so that Ctrl-C in a terminal reaches only us
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=die_with(os.getpid(), death_signal),  # noqa: PLW1509  it makes two system calls and takes no lock
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerError(
            f"{command[0]} cannot be run{f' as {account.pw_name}' if account else ''}: {error}. Cure: run as an "
            "ordinary user, reinstall 'arqonce[embedded]' for this platform, or point DATABASE_URL and REDIS_URL "
            "at your own servers."
        ) from error


def run_tool(command: Sequence[str | Path], *, account: pwd.struct_passwd | None) -> tuple[int, str]:
    """Run a short program to its end and return its exit code and output."""
    with start_process(command, account=account, output=subprocess.PIPE, death_signal=signal.SIGKILL) as process:
        output, _ = process.communicate()
    return process.returncode, output.decode(errors="replace")


def stop_process(process: subprocess.Popen[bytes], steps: StopSteps) -> None:
    """End a child with ``steps`` and at last SIGKILL; do nothing if it has ended."""
    try:
        for number, patience in steps:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience.total_seconds())
                return
    finally:  # also if Ctrl-C interrupts the wait
        process.kill()
        process.wait()


def stop_leftover(pid_path: Path, mark: str, steps: StopSteps) -> None:
    """Stop the process that a killed owner left, if the pid file names one with ``mark`` in its command line.

    Removes the pid file, whose pid may belong to another program by now. The caller must hold the directory's lock.
    """
    try:
        pid = int(pid_path.read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    for number, patience in [*steps, (signal.SIGKILL, timedelta(seconds=5))]:
        deadline = time.monotonic() + patience.total_seconds()
        if mark in _command_of(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while mark in _command_of(pid) and time.monotonic() < deadline:
            time.sleep(_POLL.total_seconds())
    pid_path.unlink(missing_ok=True)


def die_with(owner: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    """Return a function that a child calls before exec; on Linux it requests a signal at its owner's death."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))  # exec keeps it; setuid clears it, but Popen has called that before
        if os.getppid() != owner:  # the owner has already died
            os._exit(1)

    return ask_kernel


def _command_of(pid: int) -> str:
    """Return the command line of a process; an empty string if it has ended."""
    if sys.platform != "linux":
        ps = ["ps", "-ww", "-p", str(pid), "-o", "command="]
        return os.fsdecode(subprocess.run(ps, capture_output=True, check=False).stdout)  # noqa: S603  no shell
    try:  # slim images have no ps
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
    except (FileNotFoundError, ProcessLookupError):
        return ""
