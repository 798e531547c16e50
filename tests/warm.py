"""Runs command lines to their end in forks of a process that has loaded what they need. Two such processes for a run.

One has loaded this project, the other only what is installed: its forks can be commands of any project, and pytest.
Tests of how a program starts start Python instead, with ``subprocess``.
"""

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from arqonce.testing.programs import WARM, Programs, interpreter_variables, warm_command

WARM.update(
    worker=(*WARM["arqonce"], "worker.application", "worker.commands.demo", "worker.commands.import_people"),
    web=("web.server",),
)

_INSTALLED = (
    *WARM["arqonce"],
    "arqonce.embedded.servers",
    "arqonce.ledger.schema",
    "alembic.command",
    "alembic.autogenerate",
    "alembic.config",
    "aiohttp.web",
    "arq.worker",
    "pytest",
)
"""What commands of other projects need. No plugin of pytest is among it: pytest rewrites plugins when it loads them."""

NOT_OURS = "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning"
"""A filter for what redis-py 5 is warned of on Python 3.14, for tests in which warnings are errors."""

_PYTEST = ("-p", "no:schemathesis", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""Options of each run of pytest: without a plugin that takes 0.7 s to load, and with the library that is loaded."""


@cache
def programs() -> Programs:
    """Return what forks commands of this project; it ends with this run."""
    return _opened()


@cache
def _programs_elsewhere() -> Programs:
    return _opened()


def _opened() -> Programs:
    opened = Programs()
    atexit.register(opened.close)
    return opened


def run_elsewhere(
    module: str, *arguments: str, env: Mapping[str, str], cwd: Path, timeout: float = 100.0
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m module`` of any project to its end; ``timeout`` is in seconds."""
    command = [sys.executable, "-m", module, *arguments]
    if warm_command([sys.executable, "-m", "arqonce"], env) is None:
        return subprocess.run(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
    if module == "pytest":
        arguments = (*_PYTEST, *arguments)
    return _programs_elsewhere().run(
        module, *arguments, environment=env, directory=cwd, timeout=timeout, loads=_INSTALLED
    )


def run_pytest(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Do as ``project.runpytest_subprocess``."""
    started = time.perf_counter()
    folder = project.path / "pytest-of-inner"
    done = run_elsewhere("pytest", f"--basetemp={folder}", *arguments, env=os.environ, cwd=project.path)
    print(done.stdout, done.stderr, sep="\n")  # noqa: T201 - for whoever sees the outer test fail
    seconds = time.perf_counter() - started
    return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), seconds)


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
