"""What a process of ours loads, and what it does not load until it is used."""

import json
import pkgutil
import subprocess
import sys

import pytest

from arqonce.commands.listed import COMMANDS, GROUPS
from arqonce.process.exit_codes import _CODES

_LOADED_BY_COMMANDS = """
import json, os, sys
from arqonce.loading import load_libraries
load_libraries()
from arqonce.commands.app import build_app
from worker.application import APPLICATION

for called in sys.argv[1:]:
    if os.fork() == 0:
        build_app(APPLICATION, called)
        print(json.dumps([called, sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""

_HEAVY = (
    "alembic",
    "aiohttp",
    "arq",
    "arqonce.client",
    "arqonce.contract",
    "arqonce.doctor",
    "arqonce.embedded",
    "arqonce.engine",
    "arqonce.execution",
    "arqonce.overview",
    "attr",
    "cryptography.x509",
    "jwt",
    "opentelemetry",
    "psycopg",
    "pygments",
    "rich",
    "sentry_sdk",
    "sqlalchemy.dialects.sqlite",
    "uvloop",
    "worker.commands.demo",
    "worker.commands.import_people",
)
"""Modules that cost a start time or memory."""

_NEEDS = {
    "--help": set(),
    "run": {"arq", "arqonce.engine", "arqonce.execution"},
    "relay": {"arqonce.execution"},
    "migrate": set(),
    "status": {"arqonce.overview"},
    "doctor": {"arqonce.doctor"},
    "health": set(),
    "new-job": {"arq", "arqonce.execution"},
    "dev": {"arqonce.embedded"},
    "schema": {"arqonce.client", "arqonce.contract"},
    "arq-check": {"arq", "arqonce.execution"},
    "enqueue": {"arqonce.client"},
    "dead": set(),
    "job": {"arqonce.overview"},
    "schedules": {"arqonce.client", "arqonce.execution"},
    "queue": set(),
    "workers": set(),
    "audit": set(),
    "console": set(),
    "import": {"arqonce.client", "rich", "worker.commands.import_people"},
    "demo": {
        "arqonce.client",
        "arqonce.embedded",
        "rich",
        "worker.commands.demo",
        "worker.commands.import_people",
    },
}  # fmt: skip
"""Which of them each command loads before it begins."""

_USES_STAND_INS = """
import sys
from arqonce.loading import load_libraries
load_libraries()
print(sorted({"attr", "jwt", "rich"} & set(sys.modules)))

import redis.auth.token, structlog
try:
    1 / 0
except ZeroDivisionError:
    structlog.dev.ConsoleRenderer(colors=False)(None, "", {"event": "told", "exc_info": True})
import jwt
token = jwt.encode({"exp": 4102444800, "iat": 0, "oid": "Jane"}, "a key of at least thirty-two bytes")
print(redis.auth.token.JWToken(token).try_get("oid"), sorted({"attr", "jwt", "rich"} & set(sys.modules)))
"""


def _output(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


@pytest.mark.usefixtures("starts_processes")
def test_a_command_loads_what_it_needs_alone() -> None:
    """Starts are what most of a fleet's CPU time outside of jobs goes into, and what is loaded stays in memory."""
    commands = ["--help", *COMMANDS, *GROUPS, "import", "demo"]

    loaded = dict(json.loads(line) for line in _output(_LOADED_BY_COMMANDS, *commands))

    assert {name: set(_HEAVY) & set(modules) for name, modules in loaded.items()} == _NEEDS


@pytest.mark.usefixtures("starts_processes")
def test_libraries_work_without_what_they_import() -> None:
    """What redis-py and structlog import, and we do not use, is loaded when somebody uses it."""
    assert _output(_USES_STAND_INS) == ["[]", "Jane ['attr', 'jwt', 'rich']"]


@pytest.mark.parametrize("name", _CODES)
def test_each_error_with_an_exit_code_exists(name: str) -> None:
    """The table has names, which a renamed class would leave behind."""
    error = pkgutil.resolve_name(name)

    assert f"{error.__module__}:{error.__qualname__}" == name
