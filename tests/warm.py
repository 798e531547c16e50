"""Runs our command lines to their end in forks of a process that has loaded everything. One such process for a run.

Tests of how a program starts start Python instead, with ``subprocess``.
"""

import atexit
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from arqonce.testing.programs import WARM, Programs, interpreter_variables, warm_command

WARM.update(worker=("arqonce.commands.app", "worker.application"), web=("web.server",))


@cache
def programs() -> Programs:
    """Return what forks; it ends with this run."""
    opened = Programs()
    atexit.register(opened.close)
    return opened


def run(
    command: Sequence[str], env: Mapping[str, str], *, cwd: Path | None = None, timeout: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run a command as ``subprocess.run`` with no input and its output captured as text; ``timeout`` is in seconds."""
    if warm := warm_command(command, env):
        return programs().run(*warm, environment=env, directory=cwd, timeout=timeout)
    return subprocess.run(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip


def bare_environment() -> dict[str, str]:
    """Return an environment without any setting, in which our packages are found from the project's folder."""
    return interpreter_variables() | {"PYTHONPATH": "."}
